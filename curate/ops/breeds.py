"""Make a subpopulation-shift benchmark of BREEDS."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._labels.merges import merge
from curate.ops._labels.options import one_choice, reject_unknown_options
from curate.recipes.signatures import Count
from curate.rows.relation import Rows
from curate.wordnet import nouns
from curate.wordnet.breeds import Split, Superclass, stand_in, superclasses

NumpySeed = Annotated[int, Field(ge=0, lt=2**32)]
PRESETS: dict[str, dict[str, Any]] = {
    "entity-13": {"level": 3, "subclasses": 20},
    "entity-30": {"level": 4, "subclasses": 8},
    "living-17": {"level": 5, "subclasses": 4, "ancestor": "n00004258"},
    "nonliving-26": {"level": 5, "subclasses": 4, "ancestor": "n00021939"},
}


@op(version=1)
def breeds(
    rows: Rows,
    *,
    preset: Literal["entity-13", "entity-30", "living-17", "nonliving-26"] | None = None,
    level: Count | None = None,
    subclasses: Count | None = None,
    ancestor: str | None = None,
    balanced: bool = True,
    split: Split | None = None,
    half: Literal["source", "target"] | None = None,
    missing: Literal["error", "drop"] = "error",
    random_seed: NumpySeed = 2,
) -> Rows:
    """Keep the ImageNet classes of a BREEDS benchmark, labelled by their superclasses.

    Superclasses and their classes are always drawn over the 1,000 ImageNet classes, as the benchmark is
    defined, whatever the source has. Labels are the benchmark's: its superclasses in its order, the same in
    both halves unless `missing: drop` empties one. All other classes and rows without a label are dropped.

    Args:
        preset: a published benchmark: entity-13 (20 classes each), entity-30 (8), living-17 (4) or
            nonliving-26 (4).
        level: steps from the root of the benchmark's hierarchy, instead of a preset.
        subclasses: classes a superclass, even for a split; as many as the smallest has by default.
        ancestor: only superclasses below this synset: n00004258 (living things), n00021939 (the rest).
        balanced: whether every superclass has the same number of classes, or as many as there are.
        split: parts the classes of each superclass in source and target: rand (by chance), good (similar ones
            on both sides) or bad (similar ones on one side).
        half: which part to keep; both by default.
        missing: what to do about classes of the benchmark that the rows lack: refuse, or leave them out. If that
            leaves a superclass in one half only, labels of the halves differ; the ledger says so.
        random_seed: of the benchmark's draw, 2 in all published ones; the recipe's seed does not change it.

    Example:
        breeds: {preset: living-17, split: rand, half: target, missing: drop}

    Source: Santurkar et al. 2020, https://arxiv.org/abs/2008.04859.
    """
    if one_choice("breeds", {"preset": preset, "level": level}) == "preset":
        unbalanced = None if balanced else balanced
        own = {"subclasses": subclasses, "ancestor": ancestor, "balanced": unbalanced}
        reject_unknown_options(f"preset: {preset}", ("split", "half", "missing", "random_seed"), own)
    if half and not split:
        raise RecipeError(f"`half: {half}` needs a `split`", hint="`split: rand` is the usual one")
    how: dict[str, Any] = {"level": level, "subclasses": subclasses, "balanced": balanced}
    how["ancestor"] = ancestor and nouns().resolve(ancestor)
    made = superclasses(**(PRESETS[preset] if preset else how), split=split, random_seed=random_seed)
    has = {c.wnid for c in rows.classes}
    target_of = {wnid: stand_in(s.node) for s in made for wnid in _members(s, half)}
    absent = [wnid for wnid in target_of if wnid not in has]
    if absent and (missing == "error" or len(absent) == len(target_of)):
        raise RecipeError(
            f"the source lacks {len(absent):,} of {len(target_of):,} classes of the benchmark "
            f"(such as {', '.join(absent[:3])})",
            hint="`missing: drop` goes without them" if missing == "error" else "none is there",
        )
    targets = [target_of.get(c.wnid or "") for c in rows.classes]
    merged = merge(rows, targets, order=[stand_in(s.node) for s in made])
    lone = [s for s in made if split and bool(has & set(s.source)) != bool(has & set(s.target))]
    if half and lone:
        return merged.noted(
            f"{len(lone)} superclasses are in one half alone: labels of source and target differ, wnids agree"
        )
    return merged


def _members(superclass: Superclass, half: str | None) -> tuple[str, ...]:
    parts = {"source": superclass.source, "target": superclass.target}
    return parts[half] if half else superclass.source + superclass.target
