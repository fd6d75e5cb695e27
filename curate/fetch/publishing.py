"""The dataset of what a fetch brought, and what became of each row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from curate.datasets.cards import write_card
from curate.datasets.dataset import (
    BUILD,
    INFO,
    MANIFEST,
    OUTCOMES,
    Dataset,
    DatasetInfo,
    StepRecord,
    file_sha256,
    render,
)
from curate.fetch.limits import FetchLimits
from curate.fetch.pools import Pool, Request
from curate.io.files import write_atomic
from curate.io.records import environment
from curate.rows.manifest import CORE, content_digest, ordered, rows_digest
from curate.rows.relation import columns_of
from curate.rows.sql import copy_parquet, parquet, quoted, text

PLACED = ("file", "offset", "size", "ext", "width", "height", "sha256")  # what the bytes say, not the table


def publish(pool: Pool, request: Request, record: Mapping[str, Any]) -> Dataset:
    """Make the dataset of what was fetched; `dataset.json` is written last."""
    (pool.path / INFO).unlink(missing_ok=True)
    with pool.connect() as con:
        _limit(con, request.limits)
        columns = _write_rows(pool, con)
        written = parquet(pool.path / MANIFEST, file_row_number=True)
        content = content_digest(
            rows_digest(con, written, "file_row_number", ordered(columns)), request.dataset.classes
        )
        [(rows, size)] = con.execute(
            f"SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM {written}"
        ).fetchall()
        [(elsewise,)] = con.execute(
            f"SELECT count(*) FROM outcomes WHERE outcome = 'ok' AND limits <> {text(request.limits_digest)}"
        ).fetchall()
        reasons = dict(con.execute(
            "SELECT outcome, count(*) AS n FROM outcomes WHERE outcome <> 'ok' GROUP BY 1 ORDER BY n DESC, 1"
        ).fetchall())  # fmt: skip
        [(repeated,)] = con.execute("SELECT count(*) - count(DISTINCT url) FROM outcomes").fetchall()
    notes = (
        [f"{elsewise:,} rows were fetched under other limits (`limits` in {OUTCOMES})"] if elsewise else []
    )
    if repeated:
        notes.append(f"{repeated:,} rows have the URL of another row, whose outcome and bytes they share")
    info = _described(pool, request, rows, size, columns, content, reasons, notes)
    record = {
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **record,
        **environment("duckdb", "pyarrow", "img2dataset"),
    }
    write_atomic(pool.path / BUILD, (json.dumps(record, indent=1) + "\n").encode())
    write_card(pool.path, info, pool.path / MANIFEST)
    pool.write_state(request, request.digest)
    write_atomic(pool.path / INFO, render(info))
    return Dataset(pool.path, info)


def _write_rows(pool: Pool, con: Any) -> dict[str, str]:
    """Write `outcomes.parquet` and `manifest.parquet`; return the manifest's columns and their types."""
    has_hashes = "sha256" in columns_of(con, "request")
    is_hash = "regexp_full_match(lower(r.sha256), '[0-9a-f]{64}')"  # tables have other things there too
    wrong = f"f.outcome = 'ok' AND {is_hash} AND lower(r.sha256) <> f.sha256" if has_hashes else "false"
    con.execute(
        "CREATE TEMP TABLE outcomes AS SELECT r.key, r.url, "
        f"CASE WHEN {wrong} THEN 'hash mismatch' ELSE f.outcome END AS outcome, "
        f"CASE WHEN {wrong} THEN f.sha256 ELSE f.detail END AS detail, "
        "f.* EXCLUDE (row, url, outcome, detail, guards, round), f.guards AS limits, r.file_row_number AS number "
        "FROM request r JOIN limited f ON r.url = f.url"
    )
    copy_parquet(
        con,
        'SELECT * EXCLUDE (number, file, "offset") FROM outcomes ORDER BY number',
        pool.path / OUTCOMES,
    )
    columns = columns_of(con, "request")
    del columns["file_row_number"]
    kinds = {c: CORE.get(c, columns.get(c, "VARCHAR")) for c in ordered({*columns, *PLACED})}
    chosen = ", ".join(
        f"{'o' if c in PLACED else 'r'}.{quoted(c)}::{kind} AS {quoted(c)}" for c, kind in kinds.items()
    )
    rows = (
        f"SELECT {chosen} FROM request r JOIN outcomes o ON r.key = o.key "
        "WHERE o.outcome = 'ok' ORDER BY o.number"
    )
    copy_parquet(con, rows, pool.path / MANIFEST)
    return kinds


def _described(
    pool: Pool,
    request: Request,
    rows: int,
    size: int,
    columns: dict[str, str],
    content: str,
    reasons: dict[str, int],
    notes: list[str],
) -> DatasetInfo:
    asked = request.dataset.info
    count = len(asked.classes)
    step = StepRecord(
        step="fetch", rows_in=asked.rows, rows_out=rows, classes_in=count, classes_out=count, refused=reasons,
        columns_added=[c for c in columns if c not in asked.columns], notes=notes,
    )  # fmt: skip
    limits = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(request.limits).items()}
    name = f"{asked.name}-pool"[:100]
    return DatasetInfo(
        name=name,
        digest=content,
        plan=request.digest,
        rows=rows,
        bytes=size,
        root=".",
        columns=columns,
        classes=asked.classes,
        recipe={"name": name, "source": {"fetch": limits}, "of": asked.recipe},
        source={"digest": asked.digest, "left_out": reasons},
        ledger=[*asked.ledger, step],
        manifest_sha256=file_sha256(pool.path / MANIFEST),
    )


def _limit(con: Any, limits: FetchLimits) -> None:
    """Make the view `limited`: what was fetched under wider limits, and is over the present ones, is no longer ok."""
    con.execute(
        "CREATE TEMP VIEW limited AS SELECT * REPLACE (CASE "
        f"WHEN outcome = 'ok' AND size::BIGINT > {limits.max_bytes} THEN 'too large' "
        f"WHEN outcome = 'ok' AND width::BIGINT * height::BIGINT > {limits.max_pixels} THEN 'too many pixels' "
        "ELSE outcome END AS outcome) FROM fates"
    )
