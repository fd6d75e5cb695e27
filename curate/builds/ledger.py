"""The ledger: what each step did to the rows, found by comparing before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.captions.texts import LIST
from curate.datasets.dataset import StepRecord
from curate.rows.relation import Rows

PAIRS = 10_000  # wrong pairs of classes that a ledger lists; `curate query` has them all


def reasons(rows: Rows) -> dict[str, int]:
    """Return why the last step dropped rows, and how many for each reason, the most frequent first."""
    if rows.refused is None:
        return {}
    return dict(
        rows.con.execute(
            f"SELECT reason, count(*) AS n FROM {rows.refused} GROUP BY reason ORDER BY n DESC, reason"
        ).fetchall()
    )


def streamed(
    step: str,
    arguments: dict[str, Any],
    before: Rows,
    after: Rows,
    *,
    refused: dict[str, int],
    notes: Sequence[str] = (),
) -> StepRecord:
    """Return what a step did to rows that are not kept: how many came out; labels and captions stayed."""
    return StepRecord(
        step=step,
        arguments=arguments,
        rows_in=before.count(),
        rows_out=after.count(),
        classes_in=len(before.classes),
        classes_out=len(after.classes),
        columns_added=[c for c in after.columns if c not in before.columns],
        refused=refused,
        notes=list(notes),
    )


def compare(
    step: str,
    arguments: dict[str, Any],
    before: Rows,
    after: Rows,
    *,
    refused: dict[str, int] | None = None,
    notes: Sequence[str] = (),
) -> StepRecord:
    """Return what happened between two states of the rows.

    Labels are compared by class name and captions by text, over the rows that are in both, so a step that
    only renumbers its classes changes no label. Where both have `captions`, a row's texts are all of them.
    """
    names = {}
    for rows, side in ((before, "before"), (after, "after")):
        names[side] = rows.lookup(
            {"l": ("INTEGER", range(len(rows.classes))), "name": ("VARCHAR", [c.name for c in rows.classes])}
        )
    rows_in, rows_out = (r.scalar(f"SELECT count(*) FROM {r}") for r in (before, after))
    both = "caption IS DISTINCT FROM a.caption"
    if LIST in before.columns and before.columns[LIST] == after.columns.get(LIST):
        both += f" OR b.{LIST} IS DISTINCT FROM a.{LIST}"
    labels, captions = after.con.execute(
        f"SELECT count(*) FILTER (nb.name IS DISTINCT FROM na.name), "
        f"count(*) FILTER (b.{both}) "
        f"FROM {after} a JOIN {before} b USING (key) "
        f"LEFT JOIN {names['before']} nb ON b.label = nb.l LEFT JOIN {names['after']} na ON a.label = na.l"
    ).fetchall()[0]
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
        refused=refused or {},
        transitions=_transitions(before, after),
        notes=list(notes),
    )


def _transitions(before: Rows, after: Rows) -> list[tuple[str, str, int]]:
    """Return the realised noise of a step that made labels wrong: true class, given class, rows."""
    if "clean_label" not in after.columns or "clean_label" in before.columns:
        return []
    pairs = after.con.execute(
        f"SELECT clean_label, label, count(*) AS n FROM {after} WHERE clean_label <> label "
        f"GROUP BY ALL ORDER BY n DESC, clean_label, label LIMIT {PAIRS}"
    ).fetchall()
    return [(after.classes[true].id, after.classes[given].id, count) for true, given, count in pairs]
