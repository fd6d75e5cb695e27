"""Ranks: which rows are among the first of their group, without sorting more than the ranks themselves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from curate.rows import Rows

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
