"""Ranks: which rows are among the first of their group, without sorting more than the ranks themselves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from curate.rows.chance import SPAN
from curate.rows.relation import Rows

_names = itertools.count()


def mark_first(rows: Rows, column: str, *, order: str, wanted: Mapping[int, int], group: str = "0") -> Rows:
    """Return the rows with a boolean column that is true for the first so many of each group.

    Only keys and ranks are sorted, once and now, for the place of the last row that counts; the rows
    themselves are then compared with it as they stream by.

    Args:
        column: the column to add.
        order: a SQL expression over the columns; rows for which it is NULL never count, ties go by key.
        wanted: group → how many; a group that has fewer counts whole.
        group: a SQL expression over the columns, an integer.
    """
    counts = rows.lookup(
        {"ranks_group": ("INTEGER", list(wanted)), "ranks_wanted": ("BIGINT", list(wanted.values()))}
    )
    last = f"ranks_{next(_names)}"
    rows.con.execute(
        f"CREATE TEMP TABLE {last} AS SELECT ranks_group, arg_max(place, rank) AS ranks_place, "
        f"arg_max(key, rank) AS ranks_key FROM ("
        f"SELECT ranks_group, place, key, row_number() OVER (PARTITION BY ranks_group ORDER BY place, key) AS rank "
        f"FROM (SELECT {group} AS ranks_group, {order} AS place, key FROM {rows}) WHERE place IS NOT NULL) "
        f"JOIN {counts} USING (ranks_group) WHERE rank <= ranks_wanted GROUP BY ranks_group"
    )
    ordered = rows.sql(
        f"SELECT *, {group} AS ranks_at, {order} AS ranks_order FROM {rows}"
    )  # hashed once a row
    first = "ranks_order < ranks_place OR (ranks_order = ranks_place AND key <= ranks_key)"
    return rows.sql(
        f"SELECT r.* EXCLUDE (ranks_at, ranks_order), coalesce({first}, false) AS {column} "
        f"FROM {ordered} r LEFT JOIN {last} ON ranks_at = ranks_group"
    )


def only(rows: Rows, column: str) -> Rows:
    """Return the rows that `mark_first` marked in a column, without the column."""
    return rows.sql(f"SELECT * EXCLUDE ({column}) FROM {rows} WHERE {column}")


def drawn(
    rows: Rows, *, chance: str, wanted: Mapping[int, int], sizes: Mapping[int, int], group: str = "0"
) -> Rows:
    """Return the first so many rows of each group by chance, ties by key; a group that has fewer comes whole.

    Chance is uniform, so the first n of N rows lie below n / N of its span, and six standard deviations: what is
    below is kept, in one pass, and only that is sorted. Where that was too few (streamed rows may be there twice),
    twice as much is kept.

    Args:
        chance: a SQL expression over the columns, as `chance_sql` gives it.
        wanted: group → how many.
        sizes: group → how many rows there are.
        group: a SQL expression over the columns, an integer.
    """
    room = 1
    while True:
        limits = {g: _limit(n, sizes.get(g, 0), room) for g, n in wanted.items()}
        kept = rows.kept(_below(rows, chance, limits, group))
        found = dict(rows.con.execute(f"SELECT {group}, count(*) FROM {kept} GROUP BY 1").fetchall())
        if rows.planning or all(found.get(g, 0) >= n or limits[g] >= SPAN for g, n in wanted.items()):
            return only(mark_first(kept, "_drawn", order=chance, wanted=wanted, group=group), "_drawn")
        rows.con.execute(f"DROP TABLE {kept}")
        room *= 2


def _limit(wanted: int, size: int, room: int) -> int:
    """Return below which chance so many of so many rows lie, almost surely."""
    enough = wanted + 6 * math.sqrt(wanted) + 16
    return min(SPAN, int(enough / size * SPAN) * room) if size else SPAN


def _below(rows: Rows, chance: str, limits: Mapping[int, int], group: str) -> str:
    """Return a query of the rows below the limit of their group."""
    if list(limits) == [0] and group == "0":
        return f"SELECT * FROM {rows}" + ("" if limits[0] >= SPAN else f" WHERE {chance} < {limits[0]}")
    table = rows.lookup(
        {"below_group": ("INTEGER", list(limits)), "below_limit": ("UHUGEINT", list(limits.values()))}
    )
    return f"SELECT r.* FROM {rows} r JOIN {table} ON {group} = below_group WHERE {chance}::UHUGEINT < below_limit"
