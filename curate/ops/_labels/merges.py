"""Merging classes into coarser ones, and the synsets that classes stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Sequence

from curate.errors import RecipeError
from curate.rows.manifest import Class
from curate.rows.relation import Rows, remap
from curate.wordnet import nouns, unique_names


def merge(rows: Rows, targets: Sequence[str | None], *, order: Iterable[str] | None = None) -> Rows:
    """Return the rows under the class that `targets` gives each old label; None drops the class.

    Args:
        order: the new classes in label order; else they come as their smallest old labels do.
    """
    used = dict.fromkeys(t for t in targets if t is not None)
    new = list(used) if order is None else [t for t in order if t in used]
    fine: dict[str, list[str]] = {t: [] for t in new}
    for old, target in zip(rows.classes, targets, strict=True):
        if target is not None:
            fine[target] += old.fine or (old.id,)
    known = {c.id: c for c in rows.classes}
    made = []
    for target, name in zip(new, _names(new, known), strict=True):
        alone = fine[target] == [target]
        wnid = target if target in nouns() else known[target].wnid if target in known else None
        made.append(Class(name, wnid, () if alone else tuple(fine[target])))
    index = {t: i for i, t in enumerate(new)}
    return remap(rows, [None if t is None else index[t] for t in targets], made)


def synsets_of(rows: Rows, hierarchy: Container[str], called: str) -> list[str]:
    """Return the wnid of each class, in label order.

    Args:
        hierarchy: what the wnids have to be in.
        called: the hierarchy's name in a message.

    Raises:
        RecipeError: a class has none, or one that is not there.
    """
    strange = [c.id for c in rows.classes if c.wnid not in hierarchy]
    if strange:
        raise RecipeError(
            f"{len(strange):,} of {len(rows.classes):,} classes are no synsets of {called} "
            f"(such as {', '.join(strange[:3])})",
            hint="a step before keeps those that it has: `classes: {below: n00001740, parents: "
            + ("breeds}`" if "BREEDS" in called else "all}`"),
        )
    return [c.wnid for c in rows.classes if c.wnid is not None]


def _names(order: Sequence[str], known: dict[str, Class]) -> list[str]:
    """Name each new class readably, and each differently."""
    wnids = [t for t in order if t in nouns()]
    named = dict(zip(wnids, unique_names(wnids), strict=True))
    names = [named.get(t) or (known[t].name if t in known else t) for t in order]
    shared = Counter(names)
    return [n if shared[n] == 1 else f"{n} ({t})" for n, t in zip(names, order, strict=True)]
