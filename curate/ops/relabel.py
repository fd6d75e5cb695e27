"""Give rows coarser classes: by a map, or by a cut through WordNet."""

from __future__ import annotations

from typing import Annotated, Literal

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._labels.cuts import Kind, by_cut
from curate.ops._labels.maps import by_name, by_pairs, read
from curate.ops._labels.merges import merge
from curate.ops._labels.options import one_choice, reject_unknown_options
from curate.recipes.signatures import ClassName, Count, RecipeFile
from curate.rows.relation import Rows
from curate.wordnet import Parents


@op(version=2)
def relabel(
    rows: Rows,
    *,
    map: dict[ClassName, ClassName] | str | None = None,
    file: Annotated[str, RecipeFile] | None = None,
    cut: Kind | None = None,
    level: Count | None = None,
    classes: Count | None = None,
    round: Count | None = None,
    depth: Count | None = None,
    synsets: list[str] | str | None = None,
    over: str | None = None,
    parents: Parents = "first",
    others: Literal["error", "keep", "drop"] = "error",
) -> Rows:
    """Merge classes into coarser ones by a map from old to new, or by a cut through WordNet.

    New classes are in the order of their smallest old label, and list the old classes as `fine`. A new class that is
    a wnid gets its name from WordNet. Rows without a label are dropped. A synset may have several parents, so a cut
    depends on `parents`: the published label sets need `huh2016`.

    Args:
        map: old class (wnid or name) → new class (wnid or name); or a published map by name: `cifar100-20`
            (the 20 superclasses of CIFAR-100).
        file: a CSV beside the recipe instead: old and new in its first two columns, one header line.
        cut: bottom_up (at each level the deepest classes of all go to their parents), top_down (in each round
            every class goes to its parent, and a new class that lies above another takes it in), depth (what is
            deeper goes to its ancestor there) or synsets (to the nearest of the given ones).
        level: of bottom_up, from 1; counted from the deepest class of the source, so a source that lacks the
            deepest classes of ImageNet has other levels, unless `over` says otherwise.
        classes: of bottom_up and top_down, the level or round that leaves exactly so many.
        round: of top_down, from 1.
        depth: steps from the root of WordNet.
        synsets: `n02084071`, `dog.n.01` or words with one meaning; each class goes to the nearest that is
            itself or above it.
        over: of bottom_up and top_down, a named list of classes to compute the cut over, such as `imagenet-1k`:
            then a part of ImageNet gets its part of the published label set.
        parents: first (in WordNet's order), huh2016 (another at 29 synsets), breeds (the tree of BREEDS, with
            890 of the 1,000 ImageNet classes); for synsets also all (the nearest over all parents).
        others: what to do with a class that the map leaves out, or that is below none of the synsets: refuse,
            keep it as it is, or drop its rows.

    Example:
        relabel: {cut: top_down, round: 1, parents: huh2016}

    Source: Huh et al. 2016, https://arxiv.org/abs/1608.08614, section 5; https://github.com/minyoungg/wmigftl.
    """
    choice = one_choice("relabel", {"map": map, "file": file, "cut": cut})
    given = {"level": level, "classes": classes, "round": round, "depth": depth, "synsets": synsets}
    given["over"] = over
    given["parents"] = None if parents == "first" else parents
    given["others"] = None if others == "error" else others
    if cut is not None:
        return merge(rows, _with_others(rows, by_cut(rows, cut, parents, given), others, "`synsets`"))
    reject_unknown_options(choice, ("others",), given)
    if isinstance(map, str):
        return merge(rows, _with_others(rows, by_name(rows, map), others, f"the map {map!r}"))
    pairs = map if map is not None else read(file or "")
    return merge(rows, _with_others(rows, by_pairs(rows, pairs), others, "the map"))


def _with_others(rows: Rows, targets: list[str | None], others: str, what: str) -> list[str | None]:
    """Return the targets with the classes that have none treated as `others` says."""
    left = [c.id for c, target in zip(rows.classes, targets, strict=True) if target is None]
    if left and others == "error":
        raise RecipeError(
            f"{what} leaves out {len(left):,} of {len(rows.classes):,} classes (such as {', '.join(left[:3])})",
            hint="`others: keep` leaves them as they are, `others: drop` drops their rows",
        )
    if left and others == "drop" and len(left) == len(targets):
        raise RecipeError(f"{what} leaves out all {len(left):,} classes (such as {', '.join(left[:3])})")
    if others == "keep":
        return [t or c.id for c, t in zip(rows.classes, targets, strict=True)]
    return targets
