"""What a recipe promises with `expect:`, held against the rows before they are published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.errors import DataError
from curate.recipes.recipe import Expect
from curate.rows.manifest import Class

RATE_TOLERANCE = 0.5  # rows: a rate is met when no count of wrong labels comes nearer to it


def enforce(expect: Expect, con: Any, table: str, classes: Sequence[Class], *, where: str) -> None:
    """Refuse rows that break a promise.

    Raises:
        DataError: with what was promised and what came out.
    """
    rows, captions, labelled = con.execute(
        f"SELECT count(*), count(caption), count(label) FROM {table}"
    ).fetchall()[0]

    def broken(name: str, promised: Any, actual: Any) -> DataError:
        return DataError(
            f"{where}: expect: {name}: {promised} was promised, {actual} came out; nothing was published",
            hint="`curate build --plan` shows the steps; change them or `expect`",
        )

    if expect.rows is not None and rows != expect.rows:
        raise broken("rows", f"{expect.rows:,}", f"{rows:,}")
    if expect.classes is not None and len(classes) != expect.classes:
        raise broken("classes", expect.classes, len(classes))
    if expect.captions is not None and (captions == rows) != expect.captions:
        raise broken("captions", expect.captions, f"{captions:,} of {rows:,} rows have one")
    if expect.per_class is not None:
        span = expect.per_class
        low, high = (span, span) if isinstance(span, int) else (span.min, span.max)
        counts = dict(
            con.execute(f"SELECT label, count(*) FROM {table} WHERE label IS NOT NULL GROUP BY 1").fetchall()
        )
        wrong = [
            (c.id, counts.get(i, 0)) for i, c in enumerate(classes) if not low <= counts.get(i, 0) <= high
        ]
        if wrong:
            examples = ", ".join(f"{name} has {count:,}" for name, count in wrong[:3])
            raise broken(
                "per_class", low if low == high else f"{low} to {high}", f"{examples} ({len(wrong)} in all)"
            )
    if expect.noise_rate is not None:
        columns = {c[0] for c in con.execute(f"DESCRIBE {table}").fetchall()}
        query = f"SELECT count(*) FROM {table} WHERE label IS DISTINCT FROM clean_label"
        wrong_labels = con.execute(query).fetchall()[0][0] if "clean_label" in columns else 0
        if abs(wrong_labels - expect.noise_rate * labelled) > RATE_TOLERANCE:
            raise broken(
                "noise_rate", expect.noise_rate, f"{wrong_labels:,} of {labelled:,} labels are wrong"
            )
