"""Leave out all classes below some synsets."""

from __future__ import annotations

from typing import Literal

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._labels.options import one_choice
from curate.rows.relation import Rows, keep_classes
from curate.wordnet import Parents, nouns
from curate.wordnet import below as everything_below
from curate.wordnet.trees import voc_synsets


@op(version=1)
def without(
    rows: Rows,
    *,
    below: list[str] | str | None = None,
    preset: Literal["voc"] | None = None,
    parents: Parents = "all",
) -> Rows:
    """Drop every class that is one of some synsets or below one of them.

    `preset: voc` leaves 771 of the 1,000 ImageNet classes: ImageNet without PASCAL VOC. Classes that are
    not a synset stay, and so do rows without a label. A true label (`clean_label`) of a dropped class becomes NULL.

    Args:
        below: synsets (`n02084071`, `dog.n.01` or a word with one meaning).
        preset: voc, the synsets of the 20 classes of PASCAL VOC.
        parents: what is below a synset: over all parents, or along one parent each (first, huh2016, breeds; see
            `relabel`); all and huh2016 give the published 771 classes, first leaves 779.

    Example:
        without: {below: domestic_cat}

    Source: Huh et al. 2016, https://arxiv.org/abs/1608.08614, section 5.
    """
    one_choice("without", {"below": below, "preset": preset})
    given = [below] if isinstance(below, str) else below if below is not None else voc_synsets().values()
    tops = [nouns().resolve(top) for top in given]
    gone = everything_below(tops, parents)
    labels = [i for i, c in enumerate(rows.classes) if c.wnid not in gone]
    named = ", ".join(f"{top} ({nouns().name(top)})" for top in tops[:3]) or "nothing"
    if preset is None and len(labels) == len(rows.classes):
        raise RecipeError(f"none of the {len(labels):,} classes is below {named}", hint="leave the step out")
    if not labels:
        raise RecipeError(
            f"all {len(rows.classes):,} classes are below {named}", hint="nothing would be left"
        )
    return keep_classes(rows, labels, unlabelled="keep")
