"""Give rows the classes that a map says."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Annotated, Literal

from curate.errors import RecipeError
from curate.manifests import Class
from curate.ops import op
from curate.rows import Rows, class_ids, remap
from curate.signatures import RecipeFile
from curate.wordnet import nouns, unique_names


@op(version=1)
def relabel(
    rows: Rows,
    *,
    map: dict[str, str] | None = None,
    file: Annotated[str, RecipeFile] | None = None,
    others: Literal["error", "keep", "drop"] = "error",
) -> Rows:
    """Merge classes into coarser ones by a map from old to new.

    New classes come in the order of the smallest old label they take in, and remember the old ones as `fine`.
    A new class that is a wnid gets its name from WordNet. Rows without a label go.

    Args:
        map: old class (wnid or name) → new class (wnid or name).
        file: a CSV beside the recipe instead: old and new in its first two columns, one header line.
        others: what to do with a class that the map leaves out: refuse, keep it as it is, or drop its rows.

    Example:
        relabel: {map: {tabby: n02121808, Persian cat: n02121808, convertible: n02958343, sports car: n02958343}}

    Source: Huh et al. 2016, https://arxiv.org/abs/1608.08614, section 5.
    """
    if (map is None) == (file is None):
        raise RecipeError("relabel takes either `map` or `file`")
    pairs = dict(map) if map is not None else _read(file or "")
    if not pairs:
        raise RecipeError("the map is empty", hint="name at least one class: `map: {n02084071: dog}`")
    labels = class_ids(rows, list(pairs), where="map")
    targets: dict[int, str] = {}
    for label, new in zip(labels, pairs.values(), strict=True):
        if targets.setdefault(label, new) != new:
            raise RecipeError(
                f"{rows.classes[label].id!r} is mapped twice, to {targets[label]!r} and {new!r}",
                hint=f"it is also called {rows.classes[label].name!r}; keep one of the two",
            )
    left = [c.id for i, c in enumerate(rows.classes) if i not in targets]
    if left and others == "error":
        raise RecipeError(
            f"the map leaves out {len(left)} of {len(rows.classes)} classes (such as {', '.join(left[:3])})",
            hint="`others: keep` leaves them as they are, `others: drop` drops their rows",
        )
    if others == "keep":
        targets |= {i: c.id for i, c in enumerate(rows.classes) if i not in targets}
    return merge(rows, [targets.get(i) for i in range(len(rows.classes))])


def merge(rows: Rows, targets: list[str | None]) -> Rows:
    """Return the rows under the class that `targets` gives each old label; None drops the class."""
    order = list(dict.fromkeys(t for t in targets if t is not None))
    fine: dict[str, list[str]] = {t: [] for t in order}
    for old, target in zip(rows.classes, targets, strict=True):
        if target is not None:
            fine[target] += old.fine or (old.id,)
    known = {c.id: c for c in rows.classes}
    made = []
    for target, name in zip(order, _names(order, known), strict=True):
        alone = fine[target] == [target]
        wnid = target if target in nouns() else known[target].wnid if target in known else None
        made.append(Class(name, wnid, () if alone else tuple(fine[target])))
    index = {t: i for i, t in enumerate(order)}
    return remap(rows, [None if t is None else index[t] for t in targets], made)


def _names(order: Iterable[str], known: dict[str, Class]) -> list[str]:
    """Name each new class readably, and each differently."""
    order = list(order)
    wnids = [t for t in order if t in nouns()]
    named = dict(zip(wnids, unique_names(wnids), strict=True))
    names = [named.get(t) or (known[t].name if t in known else t) for t in order]
    return [n if names.count(n) == 1 else f"{n} ({t})" for n, t in zip(names, order, strict=True)]


def _read(path: str) -> dict[str, str]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.reader(stream) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"{path}: cannot be read as CSV ({error})") from error
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) < 2:
            raise RecipeError(
                f"{path}, line {number}: two columns are needed, old and new class; got {line!r}"
            )
        if pairs.setdefault(line[0], line[1]) != line[1]:
            raise RecipeError(
                f"{path}, line {number}: {line[0]!r} is mapped twice, to {pairs[line[0]]!r} and {line[1]!r}"
            )
    return pairs
