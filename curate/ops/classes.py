"""Keep some of the classes."""

from curate.chance import chance
from curate.errors import RecipeError
from curate.ops import op
from curate.rows import Rows, class_ids, keep_classes
from curate.signatures import Count, Seed
from curate.wordnet import nouns


@op(version=1)
def classes(
    rows: Rows,
    *,
    number: Count | None = None,
    names: list[str] | None = None,
    below: list[str] | str | None = None,
    seed: Seed,
) -> Rows:
    """Keep a number of classes drawn by chance, the named ones, or all below some synsets.

    Draws nest: with one seed, 100 classes are inside 200. Labels become 0, 1, 2, … in the old order. Rows
    without a label go.

    Args:
        number: how many, drawn by chance.
        names: wnids or class names.
        below: synsets (`n02084071`, `dog.n.01` or a word with one meaning): every class that is one of them
            or below one of them in WordNet, over all parents.

    Example:
        classes: {below: domestic_cat}
    """
    if sum(choice is not None for choice in (number, names, below)) != 1:
        raise RecipeError("classes takes one of `number`, `names` and `below`")
    if number is not None:
        return keep_classes(rows, _drawn(rows, number, seed))
    if names is not None:
        return keep_classes(rows, class_ids(rows, names, where="names"))
    tops = [nouns().resolve(top) for top in ([below] if isinstance(below, str) else below or [])]
    subtree = nouns().below(tops)
    kept = [i for i, c in enumerate(rows.classes) if c.wnid in subtree]
    if not kept:
        named = ", ".join(f"{top} ({nouns().name(top)})" for top in tops) or "nothing"
        raise RecipeError(f"none of the {len(rows.classes)} classes is below {named}")
    return keep_classes(rows, kept)


def _drawn(rows: Rows, number: int, seed: int) -> list[int]:
    if number > len(rows.classes):
        raise RecipeError(f"{number} classes wanted of {len(rows.classes)}", hint="ask for fewer")
    ranked = sorted(range(len(rows.classes)), key=lambda i: (chance(rows.classes[i].id, seed, "classes"), i))
    return ranked[:number]
