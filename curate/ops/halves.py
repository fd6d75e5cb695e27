"""Split the classes in two."""

from __future__ import annotations

from typing import Literal

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._labels.merges import synsets_of
from curate.ops._labels.options import reject_unknown_options
from curate.recipes.signatures import Count, Seed
from curate.rows.chance import chance
from curate.rows.relation import Rows, keep_classes
from curate.wordnet import Parents, nouns
from curate.wordnet import below as everything_below

ARTIFACT = "n00021939"


@op(version=1)
def halves(
    rows: Rows,
    *,
    split: Literal["random", "minimal"],
    half: Literal["a", "b"],
    classes: Count | None = None,
    top: str = ARTIFACT,
    parents: Parents = "huh2016",
    seed: Seed,
) -> Rows:
    """Keep one of two parts of the classes: at random, or the two that have least in common.

    The parts share no class and together are all of them: `half: a` and `half: b` of one split and seed
    complement each other. Minimal parts are artifacts and all the rest: on ImageNet 522 and 478 classes, which
    meet in WordNet only above depth 4. Rows without a label are dropped.

    Args:
        split: random, or minimal (a is all that is below `top`, b the rest).
        half: which part to keep.
        classes: of random, how many classes a has; half of them, rounded up, by default. The paper has 522.
        top: of minimal, the synset above a.
        parents: of minimal, what is below `top`: along one parent each (huh2016, first, breeds; see
            `relabel`), or over all.

    Example:
        halves: {split: minimal, half: a}

    Source: Huh et al. 2016, https://arxiv.org/abs/1608.08614, section 5.6.
    """
    given = {
        "classes": classes,
        "top": None if top == ARTIFACT else top,
        "parents": None if parents == "huh2016" else parents,
    }
    if split == "random":
        reject_unknown_options("split: random", ("classes",), given)
        first = _drawn(rows, classes, seed)
        what = f"{len(first)} classes drawn by chance"
    else:
        reject_unknown_options("split: minimal", ("top", "parents"), given)
        above = nouns().resolve(top)
        subtree = everything_below([above], parents)
        wnids = synsets_of(rows, nouns(), "WordNet")
        first = {i for i, wnid in enumerate(wnids) if wnid in subtree}
        what = f"the classes below {above} ({nouns().name(above)})"
    labels = [i for i in range(len(rows.classes)) if (i in first) == (half == "a")]
    if not labels:
        raise RecipeError(
            f"half {half} has none of the {len(rows.classes):,} classes", hint=f"half a is {what}, b the rest"
        )
    return keep_classes(rows, labels)


def _drawn(rows: Rows, number: int | None, seed: int) -> set[int]:
    total = len(rows.classes)
    number = (total + 1) // 2 if number is None else number
    if number > total:
        raise RecipeError(f"{number} classes wanted of {total}", hint="ask for fewer")
    ranked = sorted(range(total), key=lambda i: (chance(rows.classes[i].id, seed, "halves"), i))
    return set(ranked[:number])
