"""The ledger: what each step did to the rows, found by comparing before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.datasets import StepRecord
from curate.rows import Rows


def compare(
    step: str, arguments: dict[str, Any], before: Rows, after: Rows, *, notes: Sequence[str] = ()
) -> StepRecord:
    """Return what happened between two states of the rows.

    Labels are compared by class name and captions by text, over the rows that are in both, so a step that
    only renumbers its classes changes no label.
    """
    names = {}
    for rows, side in ((before, "before"), (after, "after")):
        names[side] = rows.lookup(
            {"l": ("INTEGER", range(len(rows.classes))), "name": ("VARCHAR", [c.name for c in rows.classes])}
        )
    rows_in, rows_out = (r.scalar(f"SELECT count(*) FROM {r}") for r in (before, after))
    labels, captions = after.con.execute(
        f"SELECT count(*) FILTER (nb.name IS DISTINCT FROM na.name), "
        f"count(*) FILTER (b.caption IS DISTINCT FROM a.caption) "
        f"FROM {after} a JOIN {before} b USING (key) "
        f"LEFT JOIN {names['before']} nb ON b.label = nb.l LEFT JOIN {names['after']} na ON a.label = na.l"
    ).fetchone()
    return StepRecord(
        step=step,
        arguments=arguments,
        rows_in=rows_in,
        rows_out=rows_out,
        classes_in=len(before.classes),
        classes_out=len(after.classes),
        labels_changed=labels,
        captions_changed=captions,
        columns_added=[c for c in after.columns if c not in before.columns],
        notes=list(notes),
    )
