"""Keep the rows that score best."""

from typing import Literal

from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.recipes.signatures import Count, Fraction
from curate.rows.relation import Rows
from curate.rows.sql import quoted


@op(version=1)
def top(
    rows: Rows,
    *,
    by: str,
    number: Count | None = None,
    fraction: Fraction | None = None,
    order: Literal["highest", "lowest"] = "highest",
    per: Literal["set", "class"] = "set",
) -> Rows:
    """Keep exactly the best rows, or a share of them, by a column.

    Smaller choices are inside larger ones; ties go by key. Rows without a score come last, and are an error when
    they would have to be kept.

    Args:
        by: the column, such as a score that `join` brought.
        number: how many.
        fraction: the share of the rows, in [0, 1], instead; rounded to the nearest row, halves up.
        order: whether the highest or the lowest values are the best.
        per: of the whole set, or of each class; then rows without a label are dropped, and a class with fewer
            than `number` is an error.

    Example:
        top: {by: similarity, number: 3}
    """
    if (number is None) == (fraction is None):
        raise RecipeError("top takes either `number` or `fraction`")
    rows.require(by, hint="`join` brings columns from a table")
    column = quoted(by)
    group = "label" if per == "class" else "1"
    labelled = "label IS NOT NULL" if per == "class" else "true"
    wanted = f"floor(_rows_there * {fraction} + 0.5)" if fraction is not None else str(number)
    ranked = rows.sql(
        f"SELECT *, row_number() OVER (PARTITION BY {group} ORDER BY {column} "
        f"{'DESC' if order == 'highest' else 'ASC'} NULLS LAST, key) AS _place, "
        f"count(*) OVER (PARTITION BY {group}) AS _rows_there FROM {rows} WHERE {labelled}"
    )
    if not rows.planning:
        _refuse_short(ranked, number, per)
    best = ranked.sql(f"SELECT * FROM {ranked} WHERE _place <= {wanted}")
    best.refuse(f"{column} IS NULL", f"have no {by!r} and would have to be kept", hint="ask for fewer")
    return best.sql(f"SELECT * EXCLUDE (_place, _rows_there) FROM {best}")


def _refuse_short(ranked: Rows, number: int | None, per: str) -> None:
    if number is None:
        return
    if per == "set":
        total = ranked.scalar(f"SELECT count(*) FROM {ranked}")
        if total < number:
            raise DataError(f"{number:,} rows wanted of {total:,}", hint="ask for fewer")
        return
    few = ranked.con.execute(
        f"SELECT DISTINCT label, _rows_there FROM {ranked} WHERE _rows_there < {number} ORDER BY label"
    ).fetchall()
    if few:
        examples = ", ".join(f"{ranked.classes[label].id} has {count}" for label, count in few[:3])
        raise DataError(
            f"{len(few)} classes have fewer than {number} rows ({examples})",
            hint="ask for fewer, or a `fraction`",
        )
