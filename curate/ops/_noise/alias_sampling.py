"""Draws by weight: one outcome of several for each row, by Walker's alias method.

A group's weights become as many slots of equal width as it has outcomes, each shared by at most two of them
(Vose 1991, https://doi.org/10.1109/32.92917). A row then takes a slot and a side of it, which is a join by equality:
nothing is sorted, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curate.rows.chance import chance_sql
from curate.rows.relation import Rows

Weights = Mapping[int, Sequence[tuple[int, float]]]  # group → (outcome, weight), all weights above 0


def unit_sql(seed: int, salt: str) -> str:
    """Return a SQL expression (DOUBLE) of the row's chance in [0, 1): its upper 53 bits, which a double holds."""
    return f"(({chance_sql(seed, salt)} >> 11)::DOUBLE * {2.0**-53!r})"


def alias_draw(rows: Rows, weights: Weights, *, group: str, unit: str, into: str) -> Rows:
    """Return the rows with a column of outcomes, drawn with the weights of the row's group.

    Args:
        group: a SQL expression over the columns; NULL, or a group without weights, gives NULL.
        unit: a SQL expression, uniform in [0, 1).
        into: the column to add.
    """
    slots: list[tuple[int, float, int, int]] = []
    first = []
    for outcomes in weights.values():
        first.append(len(slots))
        slots += [(i, *slot) for i, slot in enumerate(alias_table(outcomes), start=len(slots))]
    groups = rows.lookup(
        {
            "_draw_group": ("INTEGER", list(weights)),
            "_draw_first": ("INTEGER", first),
            "_draw_slots": ("INTEGER", [len(outcomes) for outcomes in weights.values()]),
        }
    )
    kinds = {
        "_draw_slot": "INTEGER",
        "_draw_share": "DOUBLE",
        "_draw_own": "INTEGER",
        "_draw_other": "INTEGER",
    }
    columns: list[Sequence[float]] = list(zip(*slots, strict=True)) or [[]] * 4
    table = rows.lookup({c: (k, v) for (c, k), v in zip(kinds.items(), columns, strict=True)})
    placed = rows.sql(
        f"SELECT r.*, _draw_first, CASE WHEN _draw_slots IS NOT NULL THEN {unit} * _draw_slots END AS _draw_at "
        f"FROM {rows} r LEFT JOIN {groups} ON {group} = _draw_group"
    )
    return rows.sql(
        f"SELECT r.* EXCLUDE (_draw_first, _draw_at), "
        f"CASE WHEN _draw_at - floor(_draw_at) < _draw_share THEN _draw_own ELSE _draw_other END AS {into} "
        f"FROM {placed} r LEFT JOIN {table} ON _draw_first + floor(_draw_at)::INTEGER = _draw_slot"
    )


def alias_table(outcomes: Sequence[tuple[int, float]]) -> list[tuple[float, int, int]]:
    """Return the slots of one group: the share of the slot's own outcome, that outcome, and the other one."""
    scale = len(outcomes) / sum(weight for _, weight in outcomes)
    left = [weight * scale for _, weight in outcomes]
    slots = [(1.0, outcome, outcome) for outcome, _ in outcomes]
    small = [i for i, share in enumerate(left) if share < 1]
    large = [i for i, share in enumerate(left) if share >= 1]
    while small and large:
        i, j = small.pop(), large[-1]
        slots[i] = (left[i], outcomes[i][0], outcomes[j][0])
        left[j] -= 1 - left[i]
        if left[j] < 1:
            small.append(large.pop())
    return slots
