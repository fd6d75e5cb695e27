"""Who is drawn, where it matters how many each class gives."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from curate.rows.chance import chance, chance_sql
from curate.rows.first_rows import mark_first_rows, marked_rows
from curate.rows.relation import Rows, keep_classes

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
    return keep_classes(marked_rows(mark(rows, "_drawn", wanted, seed, SALT), "_drawn"), wanted)


def strata(rows: Rows) -> dict[int, int]:
    """Return label → rows, with the rows without a label under `UNLABELLED`."""
    found = rows.con.execute(
        f"SELECT coalesce(label, {UNLABELLED}), count(*) FROM {rows} GROUP BY 1"
    ).fetchall()
    return dict(sorted(found))


def allocate(
    rows: Rows, number: int, allocation: Literal["equal", "proportional"], seed: int, salt: str
) -> dict[int, int]:
    """Return how many of so many rows each class gives; of a larger number, no class gives fewer.

    equal: every class gives its first row before any gives its second. proportional: the n-th row of a class has
    its turn at (n - ½) / size of the class, the rule of Webster, so that any number has of each class its share.
    Where turns tie, classes go in an order of chance. Rows without a label count as one class more.
    """
    have = strata(rows)
    number = min(number, sum(have.values()))
    turn = {label: place for place, label in enumerate([*by_chance(rows, seed, f"{salt}/class"), UNLABELLED])}

    def priority(label: int, taken: int) -> tuple[Fraction | int, int]:
        return (Fraction(2 * taken + 1, 2 * have[label]) if allocation == "proportional" else taken), turn[
            label
        ]

    if allocation == "proportional":
        quotas = _sure_seats(have, number)
    else:
        quotas = {label: min(size, _level(have, number)) for label, size in have.items()}
    line = [(priority(label, taken), label) for label, taken in quotas.items() if taken < have[label]]
    heapq.heapify(line)
    for _ in range(number - sum(quotas.values())):
        _, label = heapq.heappop(line)
        quotas[label] += 1
        if quotas[label] < have[label]:
            heapq.heappush(line, (priority(label, quotas[label]), label))
    return quotas


def _sure_seats(have: Mapping[int, int], number: int) -> dict[int, int]:
    """Return for each class how many of its rows have their turn before that of the last of so many, nearly."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if sum(int(middle * size + 0.5) for size in have.values()) <= number:
            low = middle
        else:
            high = middle
    low *= 1 - 1e-9  # below any rounding of floats: the rest is counted exactly
    return {label: int(low * size + 0.5) for label, size in have.items()}


def _level(have: Mapping[int, int], number: int) -> int:
    """Return the most that every class may give, those that have fewer giving all, within so many rows."""
    left, sizes = number, sorted(have.values())
    for passed, size in enumerate(sizes):
        if size * (len(sizes) - passed) > left:
            return left // (len(sizes) - passed)
        left -= size
    return sizes[-1] if sizes else 0


def mark(rows: Rows, column: str, quotas: Mapping[int, int], seed: int, salt: str) -> Rows:
    """Return the rows with a boolean column that is true, by chance, for so many of each class (see `strata`)."""
    group = f"coalesce(label, {UNLABELLED})"
    return mark_first_rows(rows, column, order=chance_sql(seed, salt), wanted=quotas, group=group)
