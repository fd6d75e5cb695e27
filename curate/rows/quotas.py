"""Quotas: how many rows of each class are drawn, and which."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from curate.rows.chance import chance, chance_sql
from curate.rows.first_rows import mark_first_rows, marked_rows
from curate.rows.relation import Rows, keep_classes

SALT = "per_class"  # of every draw inside classes, so that draws of several operations nest
UNLABELLED = -1  # stands for the rows without a label, which count as one more class


def sizes(rows: Rows) -> list[int]:
    """Return the number of rows of each class, in label order."""
    counts = dict(rows.con.execute(f"SELECT label, count(*) FROM {rows} GROUP BY label").fetchall())
    return [counts.get(label, 0) for label in range(len(rows.classes))]


def by_chance(rows: Rows, seed: int, salt: str) -> list[int]:
    """Return the labels in random order, which depends on the ids of the classes and not on their labels."""
    ids = [c.id for c in rows.classes]
    return sorted(range(len(ids)), key=lambda label: (chance(ids[label], seed, salt), label))


def draw(rows: Rows, quotas: Sequence[int], seed: int) -> Rows:
    """Draw rows of each class by chance; classes with a quota of 0 and rows without a label are dropped."""
    wanted = {label: quota for label, quota in enumerate(quotas) if quota}
    return keep_classes(marked_rows(mark(rows, "_drawn", wanted, seed, SALT), "_drawn"), wanted)


def strata(rows: Rows) -> dict[int, int]:
    """Return label → number of rows, with `UNLABELLED` for the rows without a label."""
    counts = rows.con.execute(
        f"SELECT coalesce(label, {UNLABELLED}), count(*) FROM {rows} GROUP BY 1"
    ).fetchall()
    return dict(sorted(counts))


def allocate(
    rows: Rows, number: int, allocation: Literal["equal", "proportional"], seed: int, salt: str
) -> dict[int, int]:
    """Share out a number of rows among the classes; for a larger number, no class gets a smaller quota.

    equal: every class gives its first row before any gives its second. proportional: the n-th row of a class has its
    turn at (n - ½) / size of the class, Webster's rule, so that each class keeps its share. Ties between classes are
    broken by chance. Rows without a label count as one more class.
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
    """Return a lower bound, nearly tight, on the proportional quota of each class."""
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
    """Return the largest equal quota that fits into a number of rows if smaller classes give all they have."""
    left, sizes = number, sorted(have.values())
    for passed, size in enumerate(sizes):
        if size * (len(sizes) - passed) > left:
            return left // (len(sizes) - passed)
        left -= size
    return sizes[-1] if sizes else 0


def mark(rows: Rows, column: str, quotas: Mapping[int, int], seed: int, salt: str) -> Rows:
    """Return the rows with a boolean column that is true for a quota of each class (see `strata`), drawn by chance."""
    group = f"coalesce(label, {UNLABELLED})"
    return mark_first_rows(rows, column, order=chance_sql(seed, salt), wanted=quotas, group=group)
