"""Keep rows that meet a condition."""

from curate.ops import op
from curate.rows.conditions import checked
from curate.rows.relation import Rows


@op(version=2, streams=True)
def where(rows: Rows, *, condition: str) -> Rows:
    """Keep the rows for which a SQL condition is true.

    The condition sees one row: its columns, functions and literals, but no other rows, tables or files. Rows
    for which it is NULL are dropped too, as in SQL.

    Args:
        condition: DuckDB SQL, such as `width >= 64 AND split = 'train'`.

    Example:
        where: width >= 400 AND similarity > 0.3
    """
    return rows.sql(f"SELECT * FROM {rows} WHERE {checked(condition, rows.columns)}")
