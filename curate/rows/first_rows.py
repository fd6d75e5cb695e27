"""First rows: the first rows of each group by an order, found without sorting whole rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from curate.rows.chance import SPAN
from curate.rows.relation import Rows

_names = itertools.count()


def mark_first_rows(
    rows: Rows, column: str, *, order: str, wanted: Mapping[int, int], group: str = "0"
) -> Rows:
    """Return the rows with a boolean column that is true for the first rows of each group.

    Only keys and the order's values are sorted, once and now, to find the last row that is marked. The rows are then
    compared with it as they stream by.

    Args:
        column: the column to add.
        order: a SQL expression over the columns; a row with NULL is never marked, ties go by key.
        wanted: group → number of rows to mark; of a smaller group all are marked.
        group: a SQL expression over the columns, an integer.
    """
    counts = rows.lookup(
        {"_ranks_group": ("INTEGER", list(wanted)), "_ranks_wanted": ("BIGINT", list(wanted.values()))}
    )
    last = f"ranks_{next(_names)}"
    rows.con.execute(
        f"CREATE TEMP TABLE {last} AS SELECT _ranks_group, arg_max(place, rank) AS _ranks_place, "
        f"arg_max(key, rank) AS _ranks_key FROM ("
        f"SELECT _ranks_group, place, key, row_number() OVER (PARTITION BY _ranks_group ORDER BY place, key) AS rank "
        f"FROM (SELECT {group} AS _ranks_group, {order} AS place, key FROM {rows}) WHERE place IS NOT NULL) "
        f"JOIN {counts} USING (_ranks_group) WHERE rank <= _ranks_wanted GROUP BY _ranks_group"
    )
    ordered = rows.sql(
        f"SELECT *, {group} AS _ranks_at, {order} AS _ranks_order FROM {rows}"
    )  # hashed once a row
    first = "_ranks_order < _ranks_place OR (_ranks_order = _ranks_place AND key <= _ranks_key)"
    return rows.sql(
        f"SELECT r.* EXCLUDE (_ranks_at, _ranks_order), coalesce({first}, false) AS {column} "
        f"FROM {ordered} r LEFT JOIN {last} ON _ranks_at = _ranks_group"
    )


def marked_rows(rows: Rows, column: str) -> Rows:
    """Return the rows for which a boolean column is true, without the column."""
    return rows.sql(f"SELECT * EXCLUDE ({column}) FROM {rows} WHERE {column}")


def draw_first_rows(
    rows: Rows, *, chance: str, wanted: Mapping[int, int], sizes: Mapping[int, int], group: str = "0"
) -> Rows:
    """Return the first rows of each group by chance, ties by key; a group that is too small is returned whole.

    Chance is uniform, so the first n of N rows lie below n / N of its span, plus six standard deviations. One pass
    keeps the rows below that limit, and only those are sorted. If they are too few (streamed rows may repeat a key),
    another pass doubles the limit.

    Args:
        chance: a SQL expression over the columns, from `chance_sql`.
        wanted: group → number of rows to return.
        sizes: group → number of rows that it has.
        group: a SQL expression over the columns, an integer.
    """
    factor = 1
    while True:
        limits = {g: _limit(n, sizes.get(g, 0), factor) for g, n in wanted.items()}
        kept = rows.kept(_below(rows, chance, limits, group))
        counts = dict(rows.con.execute(f"SELECT {group}, count(*) FROM {kept} GROUP BY 1").fetchall())
        if rows.planning or all(counts.get(g, 0) >= n or limits[g] >= SPAN for g, n in wanted.items()):
            return marked_rows(
                mark_first_rows(kept, "_drawn", order=chance, wanted=wanted, group=group), "_drawn"
            )
        rows.con.execute(f"DROP TABLE {kept}")
        factor *= 2


def _limit(wanted: int, size: int, factor: int) -> int:
    """Return the chance below which `wanted` of `size` rows lie, almost surely."""
    enough = wanted + 6 * math.sqrt(wanted) + 16
    return min(SPAN, int(enough / size * SPAN) * factor) if size else SPAN


def _below(rows: Rows, chance: str, limits: Mapping[int, int], group: str) -> str:
    """Return a query for the rows whose chance is below the limit of their group."""
    if list(limits) == [0] and group == "0":
        return f"SELECT * FROM {rows}" + ("" if limits[0] >= SPAN else f" WHERE {chance} < {limits[0]}")
    table = rows.lookup(
        {"_below_group": ("INTEGER", list(limits)), "_below_limit": ("UHUGEINT", list(limits.values()))}
    )
    return f"SELECT r.* FROM {rows} r JOIN {table} ON {group} = _below_group WHERE {chance}::UHUGEINT < _below_limit"
