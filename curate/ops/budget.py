"""Spend a fixed number of images on many classes or on many images of each."""

from dataclasses import replace
from typing import Literal

from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.recipes.signatures import Count, Seed
from curate.rows.quotas import by_chance, draw, sizes
from curate.rows.relation import Rows


@op(version=1)
def budget(
    rows: Rows,
    *,
    total: Count,
    classes: Count | None = None,
    images: Count | None = None,
    short: Literal["error", "skip"] = "error",
    seed: Seed,
) -> Rows:
    """Draw exactly so many rows in all, from so many classes or with so many images of each.

    If the total does not divide evenly, chance decides which classes give one image more. Draws nest: with one seed,
    100 classes are inside 200, and they are those that `classes` draws; 500 images of a class are inside 1,000,
    and they are those that `per_class` draws. Rows without a label are dropped.

    Args:
        total: how many rows in all.
        classes: from how many classes, drawn by chance.
        images: how many images a class instead, at least: then as many classes as the total allows.
        short: what to do with a class that has too few images: refuse the build, or skip it and take the next by
            chance (then draws of classes nest only for the same number of images a class).

    Example:
        budget: {total: 4, classes: 2, short: skip}

    Source: Huh et al. 2016, https://arxiv.org/abs/1608.08614: more classes, or more images of each.
    """
    if (classes is None) == (images is None):
        raise RecipeError("budget takes either `classes` or `images`")
    number = classes or total // (images or 1)
    if not 1 <= number <= total:
        raise RecipeError(
            f"{total:,} images are too few for {f'{number:,} classes' if classes else f'{images:,} a class'}"
        )
    if number > len(rows.classes):
        raise RecipeError(f"{number:,} classes wanted of {len(rows.classes):,}", hint="ask for fewer")
    chosen = _chosen(rows, number, -(-total // number), short, seed)
    more = [label for label in by_chance(rows, seed, "budget/more") if label in chosen][: total % number]
    quotas = [total // number if label in chosen else 0 for label in range(len(rows.classes))]
    for label in more:
        quotas[label] += 1
    drawn = draw(rows, quotas, seed)
    return replace(drawn, known=None) if rows.planning and short == "skip" else drawn


def _chosen(rows: Rows, number: int, images: int, short: str, seed: int) -> set[int]:
    """Return the labels of so many classes, the first by chance, that have so many images."""
    order = by_chance(rows, seed, "classes")
    if rows.planning:
        return set(order[:number])
    have = sizes(rows)
    enough = [label for label in order if have[label] >= images]
    if short == "skip" and len(enough) < number:
        raise DataError(
            f"{number:,} classes with {images:,} images wanted; {len(enough):,} of {len(order):,} have as many",
            hint="ask for fewer classes, or for a smaller `total`",
        )
    few = [label for label in order[:number] if have[label] < images]
    if short == "error" and few:
        shown = ", ".join(f"{rows.classes[label].id} has {have[label]:,}" for label in few[:3])
        raise DataError(
            f"{len(few):,} of the {number:,} classes drawn have fewer than {images:,} images ({shown})",
            hint="`short: skip` takes the next classes by chance instead",
        )
    return set(enough[:number])
