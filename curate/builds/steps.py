"""The steps of a plan, run over the rows of its source: the ledger is kept, and the manifest written."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from curate.builds.expectations import enforce
from curate.builds.plan import Plan
from curate.builds.step import Step, allow_only, check_result, compacted, located_errors, take_step
from curate.captions.texts import settled
from curate.datasets.dataset import MANIFEST, StepRecord
from curate.errors import CurateError, DataError
from curate.io.files import sync_file
from curate.io.progress import Quiet
from curate.rows.chance import order_sql
from curate.rows.manifest import Class, content_digest, ordered, rows_digest
from curate.rows.relation import Rows, columns_of, without_nan
from curate.rows.sql import parquet, quoted, text
from curate.sources import Index

Seconds = list[list[Any]]  # [step, seconds] in order
MEMORY = "2.5GB"  # of DuckDB, before it goes to disk; Python and what DuckDB does not count come on top


@dataclass(frozen=True)
class Manifest:
    """What running a plan's steps came to: `manifest.parquet`, and what is known of it."""

    rows: int
    bytes: int
    columns: dict[str, str]
    classes: tuple[Class, ...]
    digest: str  # of rows and classes
    ledger: list[StepRecord]
    seconds: Seconds


def make_manifest(plan: Plan, index: Index, folder: Path, *, progress: Quiet) -> Manifest:
    """Run the steps over the source's rows, hold them against `expect:`, and write `manifest.parquet`.

    Raises:
        RecipeError, DataError: from a step or a promise, or no rows are left.
    """
    recipe = plan.recipe
    with _connection(folder, plan, index) as con:
        rows, ledger, seconds = _run_steps(plan, index, con, progress)
        check_result(recipe.where, rows)
        rows = settled(replace(rows, notes=()))
        ledger[-1] = ledger[-1].model_copy(update={"notes": [*ledger[-1].notes, *rows.notes]})
        enforce(recipe.expect, con, rows.name, rows.classes, where=recipe.where)
        totals = f"SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM {rows}"
        [(count, size)] = con.execute(totals).fetchall()
        if not count:
            raise DataError(
                f"{recipe.where}: no rows are left", hint="the steps drop every row of the source"
            )
        columns = ordered(rows.columns)
        order = order_sql(recipe.seed) if recipe.order == "shuffled" else "key"
        chosen, manifest = ", ".join(map(quoted, columns)), text(str(folder / MANIFEST))
        con.execute(
            f"COPY (SELECT {chosen} FROM {rows} ORDER BY {order}) TO {manifest} (FORMAT parquet, COMPRESSION zstd)"
        )
        written = parquet(folder / MANIFEST, file_row_number=True)
        named = content_digest(rows_digest(con, written, "file_row_number", columns), rows.classes)
    sync_file(folder / MANIFEST)
    kinds = {c: rows.columns[c] for c in columns}
    return Manifest(count, size, kinds, rows.classes, named, ledger, seconds)


def _run_steps(plan: Plan, index: Index, con: Any, progress: Quiet) -> tuple[Rows, list[StepRecord], Seconds]:
    shape = columns_of(con, "source")
    source = Rows(
        con, "source", shape, index.classes, root=plan.source.root, progress=progress,
        streamed=index.streamed, known_count=index.rows,
    )  # fmt: skip
    rows, notes = (source, []) if index.streamed else compacted(source)
    ledger = [_source_record(index, plan, rows, [*index.notes, *notes])]
    seconds: Seconds = []
    unread: list[tuple[Step, Rows]] = []  # streamed, so that a value that a step cannot take is met later
    with progress.stage("steps", len(plan.steps)) as stage:
        for number, step in enumerate(plan.steps, start=1):
            started = time.monotonic()
            with _located_at_origin(unread):
                rows, record = take_step(step, rows, f"step_{number}")
            unread = [*unread, (step, rows)] if rows.streamed else []
            ledger.append(record)
            if not record.rows_out:
                why = "; ".join(f"{count:,} {reason}" for reason, count in record.refused.items())
                raise DataError(
                    f"{step.place} ({step.operation.name}): no rows are left of {record.rows_in:,}"
                    + (f": {why}" if why else ""),
                    hint="nothing was published",
                )
            if number > 1 and not rows.streamed:
                _forget(con, f"step_{number - 1}")
            seconds.append([step.operation.name, time.monotonic() - started])
            stage.advance()
    if rows.streamed:
        with _located_at_origin(unread):
            rows = rows.kept()
        dense, dropped = compacted(replace(rows, notes=()))
        update = {
            "rows_out": rows.count(),
            "classes_out": len(dense.classes),
            "notes": [*ledger[-1].notes, *rows.notes, *dropped],
        }
        ledger[-1] = ledger[-1].model_copy(update=update)
        rows = dense
    return rows, ledger, seconds


@contextmanager
def _located_at_origin(unread: list[tuple[Step, Rows]]) -> Iterator[None]:
    """Add to an error met while streamed rows are read the place of the step whose expression it comes from.

    Raises:
        RecipeError, DataError: from the first such step, or as it came.
    """
    try:
        yield
    except (duckdb.Error, CurateError):
        for step, rows in unread:
            with located_errors(step):
                rows.con.execute(f"SELECT bit_xor(hash(r)) FROM {rows} r").fetchall()
        raise


def _forget(con: Any, name: str) -> None:
    """Drop the table of a step; a view is small, and later ones may be made of it."""
    kinds = con.execute(
        "SELECT table_type FROM information_schema.tables WHERE table_name = ?", [name]
    ).fetchall()
    if kinds == [("LOCAL TEMPORARY",)]:
        con.execute(f"DROP TABLE {name} CASCADE")


@contextmanager
def _connection(folder: Path, plan: Plan, index: Index) -> Iterator[Any]:
    """Open DuckDB; it may use so much memory and then its folder, and reads the index and what steps name, no more."""
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    with duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(str(work))}")
        con.execute(f"SET memory_limit = {text(os.environ.get('CURATE_MEMORY', MEMORY))}")
        allow_only(con, plan.steps, files=[*map(str, index.files)], folders=[str(folder)])
        con.execute(f"CREATE TEMP VIEW source_as_read AS {index.query}")
        numbers = without_nan(columns_of(con, "source_as_read"))
        con.execute(f"CREATE TEMP VIEW source AS SELECT * {numbers} FROM source_as_read")
        yield con


def _source_record(index: Index, plan: Plan, rows: Rows, notes: list[str]) -> StepRecord:
    left_out = [
        f"left out: {count:,} {reason} (such as {index.left_out[reason][0]})"
        for reason, count in index.counts.items()
    ]
    return StepRecord(
        step="source",
        arguments=dict(plan.recipe.source),
        rows_in=index.rows,
        rows_out=index.rows,
        classes_in=len(index.classes),
        classes_out=len(rows.classes),
        notes=left_out + notes,
    )
