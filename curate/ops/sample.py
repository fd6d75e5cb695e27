"""Draw rows by chance."""

from typing import Literal

from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.recipes.signatures import Count, Fraction, Seed
from curate.rows.chance import chance_sql
from curate.rows.first_rows import draw_first_rows, marked_rows
from curate.rows.quotas import allocate, mark
from curate.rows.relation import Rows


@op(version=1, streams=True)
def sample(
    rows: Rows,
    *,
    number: Count | None = None,
    fraction: Fraction | None = None,
    allocation: Literal["simple", "equal", "proportional"] = "simple",
    seed: Seed,
) -> Rows:
    """Draw exactly so many rows, or a share of them, by chance.

    Draws nest: with one seed and allocation, the smaller draw from a set is inside the larger one. With equal and
    proportional, chance decides which classes give the odd rows, and rows without a label count as one more class.

    Args:
        number: how many; more than there are is an error.
        fraction: the share of the rows, in [0, 1], instead; rounded to the nearest row, halves up.
        allocation: simple (every row alike), equal (the same number of each class; if a class has too few,
            the others give more) or proportional (of each class its share of the set, rounded by the rule
            of Webster).

    Example:
        sample: {number: 4, allocation: equal}

    Source: Cochran 1977, Sampling Techniques, chapter 5; Balinski and Young 1982, Fair Representation.
    """
    if (number is None) == (fraction is None):
        raise RecipeError("sample takes either `number` or `fraction`")
    total = rows.count() if fraction is None else rows.distinct()
    wanted = int(total * fraction + 0.5) if fraction is not None else number or 0
    if wanted > total and not rows.planning:
        raise DataError(
            f"{wanted:,} rows wanted of {total:,}", hint="ask for fewer, or widen the steps before"
        )
    if allocation == "simple":
        some = draw_first_rows(rows, chance=chance_sql(seed, "sample"), wanted={0: wanted}, sizes={0: total})
    else:
        given = rows.kept() if rows.streamed else rows
        quotas = allocate(given, wanted, allocation, seed, "sample")
        some = marked_rows(mark(given, "_drawn", quotas, seed, "sample"), "_drawn")
    if rows.streamed and not rows.planning and (distinct := some.count()) < wanted:
        raise DataError(
            f"{wanted:,} rows wanted of {total:,}, of which {distinct:,} differ", hint="ask for fewer"
        )
    return some
