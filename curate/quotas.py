"""Who is drawn, where it matters how many each class gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from curate.chance import chance, chance_sql
from curate.rows import Rows, keep_classes

SALT = "per_class"  # of every draw inside classes, so that draws of several operations nest
UNLABELLED = -1  # the rows without a label, where they count as one class more


def sizes(rows: Rows) -> list[int]:
    """Return how many rows each class has, in label order."""
    found = dict(rows.con.execute(f"SELECT label, count(*) FROM {rows} GROUP BY label").fetchall())
    return [found.get(label, 0) for label in range(len(rows.classes))]


def by_chance(rows: Rows, seed: int, salt: str) -> list[int]:
    """Return the labels in an order of chance, which goes by the classes' ids and not by their labels."""
    ids = [c.id for c in rows.classes]
    return sorted(range(len(ids)), key=lambda label: (chance(ids[label], seed, salt), label))


def draw(rows: Rows, quotas: Sequence[int], seed: int) -> Rows:
    """Return by chance so many rows of each class; classes with a quota of 0 and rows without a label go."""
    wanted = {label: quota for label, quota in enumerate(quotas) if quota}
    table = rows.lookup({"_label": ("INTEGER", list(wanted)), "_quota": ("BIGINT", list(wanted.values()))})
    drawn = rows.sql(
        f"SELECT r.* FROM {rows} r JOIN {table} ON label = _label QUALIFY row_number() OVER "
        f"(PARTITION BY label ORDER BY {chance_sql(seed, SALT)}, key) <= _quota"
    )
    return keep_classes(drawn, wanted)


def in_line(rows: Rows, allocation: Literal["equal", "proportional"], seed: int, salt: str) -> Rows:
    """Return the rows with a column `_place`, 1, 2, 3, …: whoever takes the first so many is fair to classes.

    equal: every class gives its first row before any gives its second. proportional: a row's place goes by
    (rank inside its class - ½) / size of the class, the rule of Webster, so that any number from the start has
    of each class its share. Rows without a label count as one class more.
    """
    order = "_rank" if allocation == "equal" else "(_rank - 0.5::DOUBLE) / _size"
    turns = [*by_chance(rows, seed, f"{salt}/class"), UNLABELLED]
    table = rows.lookup({"_label": ("INTEGER", turns), "_turn": ("INTEGER", range(len(turns)))})
    ranked = rows.sql(
        f"SELECT *, row_number() OVER (PARTITION BY label ORDER BY {chance_sql(seed, salt)}, key) AS _rank, "
        f"count(*) OVER (PARTITION BY label) AS _size FROM {rows}"
    )
    return rows.sql(
        f"SELECT * EXCLUDE (_rank, _size, _label, _turn), row_number() OVER (ORDER BY {order}, _turn) AS _place "
        f"FROM {ranked} LEFT JOIN {table} ON coalesce(label, {UNLABELLED}) = _label"
    )
