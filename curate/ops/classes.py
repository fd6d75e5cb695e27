"""Keep some of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._labels.options import one_choice, reject_unknown_options
from curate.recipes.signatures import ClassName, Count, RecipeFile, Seed
from curate.rows.chance import chance
from curate.rows.readers.dialects import lines_of, texts_of
from curate.rows.relation import Rows, class_ids, keep_classes
from curate.wordnet import Parents, nouns
from curate.wordnet import below as everything_below
from curate.wordnet.hierarchies import WNID
from curate.wordnet.lists import wnids_of


@op(version=2)
def classes(
    rows: Rows,
    *,
    number: Count | None = None,
    names: list[ClassName] | None = None,
    below: list[str] | str | None = None,
    file: Annotated[str, RecipeFile] | None = None,
    list: str | None = None,
    parents: Parents = "all",
    missing: Literal["error", "drop"] = "error",
    seed: Seed,
) -> Rows:
    """Keep a number of classes drawn by chance, those of a list, or all below some synsets.

    Draws nest: with one seed, 100 classes are inside 200. Labels become 0, 1, 2, … in the old order. Rows
    without a label are dropped. ImageNet-100 and the like take two steps: `list`, then `number` with a seed.

    Args:
        number: how many, drawn by chance.
        names: wnids or class names.
        below: synsets (`n02084071`, `dog.n.01` or a word with one meaning): every class that is one of them
            or below one of them in WordNet.
        file: wnids or class names beside the recipe: one a line, or of a `.csv` the first column below a header.
        list: a named list: imagenet-1k, imagenet-12k, imagenet-21k, imagenet-21k-p (also -winter21),
            imagenet-a, imagenet-r or mini-imagenet, as timm ships them.
        parents: what `below` follows: all, or one parent each (first, huh2016, breeds; see `relabel`).
        missing: what to do with wanted classes that the source lacks: refuse, or keep the others.

    Example:
        classes: {below: domestic_cat}
    """
    choices = {"number": number, "names": names, "below": below, "file": file, "list": list}
    choice = one_choice("classes", choices)
    given = {
        "parents": None if parents == "all" else parents,
        "missing": None if missing == "error" else missing,
    }
    takes = {"below": ("parents",), "names": ("missing",), "file": ("missing",), "list": ("missing",)}
    reject_unknown_options(choice, takes.get(choice, ()), given)
    if number is not None:
        return keep_classes(rows, _drawn(rows, number, seed))
    if below is not None:
        return keep_classes(rows, _below(rows, [below] if isinstance(below, str) else below, parents))
    if names is not None:
        wanted, what = tuple(names), "`names`"
    elif list is not None:
        wanted, what = wnids_of(list), f"the list {list!r}"
    else:
        wanted, what = _read(file or ""), str(file)
    if choice == "names" and missing == "error":
        return keep_classes(rows, class_ids(rows, wanted, where="names"))
    return keep_classes(rows, _found(rows, wanted, what, missing))


def _drawn(rows: Rows, number: int, seed: int) -> Sequence[int]:
    if number > len(rows.classes):
        raise RecipeError(f"{number} classes wanted of {len(rows.classes)}", hint="ask for fewer")
    ranked = sorted(range(len(rows.classes)), key=lambda i: (chance(rows.classes[i].id, seed, "classes"), i))
    return ranked[:number]


def _below(rows: Rows, below: Sequence[str], parents: Parents) -> Sequence[int]:
    tops = [nouns().resolve(top) for top in below]
    subtree = everything_below(tops, parents)
    kept = [i for i, c in enumerate(rows.classes) if c.wnid in subtree]
    if not kept:
        named = ", ".join(f"{top} ({nouns().name(top)})" for top in tops) or "nothing"
        raise RecipeError(f"none of the {len(rows.classes)} classes is below {named}")
    return kept


def _found(rows: Rows, wanted: Sequence[str], what: str, missing: str) -> Sequence[int]:
    """Return the labels of the wanted classes, of those that the source has if `missing` says so."""
    index = {c.name: i for i, c in enumerate(rows.classes)} | {c.id: i for i, c in enumerate(rows.classes)}
    absent = [name for name in dict.fromkeys(wanted) if name not in index]
    shown = ", ".join(absent[:3])
    if absent and missing == "error":
        raise RecipeError(
            f"{what}: {len(absent):,} of {len(set(wanted)):,} classes are not in the source (such as {shown})",
            hint="`missing: drop` keeps the others",
        )
    kept = [index[name] for name in wanted if name in index]
    if not kept:
        has = ", ".join(c.id for c in rows.classes[:3])
        raise RecipeError(
            f"{what}: none of {len(set(wanted)):,} classes is in the source (such as {shown})",
            hint=f"it has {has}, …" if has else "the source has no classes",
        )
    return kept


def _read(path: str) -> tuple[str, ...]:
    """Return the classes that a file names."""
    if not path.lower().endswith(".csv"):
        return tuple(texts_of(path))
    lines = [line for _, line in lines_of(path)]
    if lines and WNID.fullmatch(lines[0][0]):
        raise RecipeError(
            f"{path}, line 1: {lines[0][0]!r} stands where a CSV has its header",
            hint="put a line `wnid` above it, or give the file the ending .txt",
        )
    return tuple(line[0] for line in lines[1:])
