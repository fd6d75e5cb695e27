"""Draw rows by chance."""

from curate.chance import chance_sql
from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.rows import Rows
from curate.signatures import Count, Fraction, Seed


@op(version=1)
def sample(rows: Rows, *, number: Count | None = None, fraction: Fraction | None = None, seed: Seed) -> Rows:
    """Draw exactly so many rows, or a share of them, by chance.

    Draws nest: with one seed, the smaller draw from a set is inside the larger one.

    Args:
        number: how many; more than there are is an error.
        fraction: the share of the rows, in [0, 1], instead; rounded to the nearest row, halves up.

    Example:
        sample: {number: 3}
    """
    if (number is None) == (fraction is None):
        raise RecipeError("sample takes either `number` or `fraction`")
    total = rows.scalar(f"SELECT count(*) FROM {rows}")
    wanted = int(total * fraction + 0.5) if fraction is not None else number
    if wanted > total and not rows.planning:
        raise DataError(
            f"{wanted:,} rows wanted of {total:,}", hint="ask for fewer, or widen the steps before"
        )
    return rows.sql(
        f"SELECT * FROM {rows} QUALIFY row_number() OVER (ORDER BY {chance_sql(seed, 'sample')}, key) <= {wanted}"
    )
