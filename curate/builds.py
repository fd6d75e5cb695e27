"""From a recipe to a dataset on disk."""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from curate.cards import card
from curate.chance import chance_sql
from curate.datasets import (
    BUILD,
    CARD,
    INFO,
    MANIFEST,
    SHARD_INDEX,
    ClassRecord,
    Dataset,
    DatasetInfo,
    StepRecord,
    file_sha256,
    open_dataset,
    render,
)
from curate.errors import CurateError, DataError, RecipeError
from curate.expectations import enforce
from curate.files import sync_file, write_atomic
from curate.ledgers import compare
from curate.manifests import Class, digest, ordered, quoted, rows_digest, text
from curate.plans import Plan, plan, run
from curate.progress import Quiet
from curate.ranges import is_remote
from curate.recipes import Recipe
from curate.rows import Rows, columns_of, keep_classes
from curate.shards.writing import write_shards
from curate.sources import Index
from curate.stagings import Staging, refuse_foreign


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Args:
        unchanged: whether it was there already and nothing was done.
        seconds: wall time of this call.
    """

    dataset: Dataset
    unchanged: bool
    seconds: float


def build(
    recipe: Recipe,
    out: str | Path,
    *,
    overlay: bool = False,
    workers: int | None = None,
    replace: bool = False,
    progress: Quiet | None = None,
) -> list[Built]:
    """Build what a recipe says into a folder; a matrix, each set into a folder of its own below it.

    Nothing stands in the folder until the set is finished. A set that is there and up to date is left alone; a
    build that was killed goes on where it was, and ends with the same bytes.

    Args:
        out: the dataset's folder.
        overlay: leave the bytes where they are instead of copying them into shards.
        workers: threads that write shards; one a core by default. They change nothing but the time.
        replace: whether to replace a dataset of another name that stands in `out`.

    Raises:
        RecipeError: the recipe is wrong, or `out` holds something else.
        DataError: the rows do not allow a step, break a promise of `expect`, or cannot be read.
    """
    out = Path(out)
    progress = progress or Quiet()
    workers = workers or os.cpu_count() or 1
    if recipe.family:
        plans = [plan(one) for one in recipe.family]  # find every fault before the first is built
        return [_build(p, out / p.recipe.name, overlay, workers, replace, progress) for p in plans]
    return [_build(plan(recipe), out, overlay, workers, replace, progress)]


def shard(out: str | Path, *, workers: int | None = None, progress: Quiet | None = None) -> Built:
    """Give an overlay its shards, as `build` without `overlay` would have.

    Raises:
        RecipeError: there is no dataset.
        DataError: the pool that the overlay points into has changed or is gone.
    """
    began = time.monotonic()
    dataset = open_dataset(out)
    if dataset.sharded:
        return Built(dataset, True, time.monotonic() - began)
    with _told(dataset.path), Staging(dataset.path) as staging:
        staging.keep = True
        staging.begin(dataset.info.plan)
        info = _with_shards(dataset, staging.path, workers or os.cpu_count() or 1, progress or Quiet())
        for name in (MANIFEST, CARD, BUILD):
            os.link(dataset.path / name, staging.path / name)
        write_atomic(staging.path / INFO, render(info))
        staging.publish()
    return Built(open_dataset(out), False, time.monotonic() - began)


def _build(plan: Plan, out: Path, overlay: bool, workers: int, replace: bool, progress: Quiet) -> Built:
    began = time.monotonic()
    refuse_foreign(out)
    with _told(out), Staging(out) as staging:
        with progress.stage("reading the source") as stage:
            fingerprint = plan.source.fingerprint()
            index = plan.source.index(fingerprint=fingerprint, progress=stage.advance)
        wanted = plan.digest(index.digest)
        there = _there(out, plan.recipe.name, replace)
        if (
            there
            and there.info.plan == wanted
            and there.info.source.get("fingerprint") == digest(fingerprint)
        ):
            if overlay or there.sharded:
                return Built(there, True, time.monotonic() - began)
        staging.keep = True
        staging.begin(digest([wanted, fingerprint]))
        info, seconds = _rows(plan, index, staging.path, wanted, fingerprint, out, progress)
        if not overlay:
            started = time.monotonic()
            info = _with_shards(
                Dataset(staging.path, info), staging.path, workers, progress, root=plan.source.root
            )
            seconds.append(["shards", time.monotonic() - started])
        _finish(staging.path, info, seconds)
        staging.publish()
    return Built(open_dataset(out), False, time.monotonic() - began)


def _there(out: Path, name: str, replace: bool) -> Dataset | None:
    """Return the dataset in `out`, if any; refuse one of another name."""
    if not (out / INFO).exists():
        return None
    try:
        there = open_dataset(out)
    except DataError:
        return None  # damaged: this build puts it right
    if there.name != name and not replace:
        raise RecipeError(
            f"{out}: holds the dataset {there.name!r}, not {name!r}; nothing was touched",
            hint="choose another --out, or say --replace",
        )
    return there


def _rows(
    plan: Plan, index: Index, folder: Path, wanted: str, fingerprint: str, out: Path, progress: Quiet
) -> tuple[DatasetInfo, list[list[Any]]]:
    """Run the steps and write the manifest; return what is known of the dataset, and each step's seconds."""
    with _connection(folder, index) as con:
        ledger = [_source_record(index, plan)]
        seconds: list[list[Any]] = []
        rows = Rows(con, "source", columns_of(con, "source"), index.classes)
        with progress.stage("steps", len(plan.steps)) as stage:
            for number, step in enumerate(plan.steps, start=1):
                started = time.monotonic()
                after = _kept(run(step, rows), f"step_{number}")
                ledger.append(compare(step.operation.name, step.shown, rows, after, []))
                seconds.append([step.operation.name, time.monotonic() - started])
                if number > 1:
                    con.execute(f"DROP TABLE {rows} CASCADE")
                rows = after
                stage.advance()
        rows, ledger = _compacted(rows, ledger)
        columns = ordered(rows.columns)
        order = f"{chance_sql(plan.recipe.seed, 'order')}, key" if plan.recipe.order == "shuffled" else "key"
        chosen = ", ".join(map(quoted, columns))
        con.execute(f"CREATE TABLE final AS SELECT {chosen} FROM {rows} ORDER BY {order}")
        enforce(plan.recipe.expect, con, "final", rows.classes, where=plan.recipe.where)
        total = con.execute("SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM final").fetchone()
        if not total[0]:
            raise DataError(
                f"{plan.recipe.where}: no rows are left", hint="`curate build --plan` shows the steps"
            )
        manifest = folder / MANIFEST
        con.execute(f"COPY final TO {text(str(manifest))} (FORMAT parquet, COMPRESSION zstd)")
        described = [[c.name, c.wnid, list(c.fine)] for c in rows.classes]
        named = digest([rows_digest(con, "final", "rowid", columns), described])
    sync_file(manifest)
    root = plan.source.root
    info = DatasetInfo(
        name=plan.recipe.name,
        digest=named,
        plan=wanted,
        rows=total[0],
        bytes=total[1],
        root=root if is_remote(root) else os.path.relpath(root, out.resolve()),
        columns={c: rows.columns[c] for c in columns},
        classes=[
            ClassRecord(index=i, name=c.name, wnid=c.wnid, fine=list(c.fine))
            for i, c in enumerate(rows.classes)
        ],
        recipe=plan.recipe.model_dump(mode="json", exclude_defaults=True),
        source={"digest": index.digest, "fingerprint": digest(fingerprint), "left_out": dict(index.counts)},
        ledger=ledger,
        manifest_sha256=file_sha256(manifest),
    )
    return info, seconds


@contextmanager
def _connection(folder: Path, index: Index) -> Iterator[Any]:
    """Open DuckDB on a file, so that memory bounds nothing; it can read the index and this folder, no more."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    for left in work.iterdir():
        left.unlink()
    with duckdb.connect(str(work / "rows.duckdb")) as con:
        con.execute(f"SET temp_directory = {text(str(work))}")
        con.execute(f"SET allowed_directories = [{text(str(folder))}]")
        con.execute(f"SET allowed_paths = [{text(str(index.parquet))}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        con.execute(f"CREATE TEMP VIEW source AS FROM read_parquet({text(str(index.parquet))})")
        yield con


def _kept(rows: Rows, name: str) -> Rows:
    rows.con.execute(f"CREATE TABLE {name} AS FROM {rows}")
    return Rows(rows.con, name, rows.columns, rows.known)


def _source_record(index: Index, plan: Plan) -> StepRecord:
    notes = [
        f"left out: {count:,} {reason} (such as {index.left_out[reason][0]})"
        for reason, count in index.counts.items()
    ]
    count = len(index.classes)
    return StepRecord(
        step="source", arguments={k: v for k, v in plan.recipe.source.items()}, rows_in=index.rows, rows_out=index.rows,
        classes_in=count, classes_out=count, notes=notes,
    )  # fmt: skip


def _compacted(rows: Rows, ledger: list[StepRecord]) -> tuple[Rows, list[StepRecord]]:
    """Drop the classes that no row has any more, so that labels are dense; the ledger says so."""
    clean = ", clean_label" if "clean_label" in rows.columns else ""
    used = {
        v for row in rows.con.execute(f"SELECT DISTINCT label{clean} FROM {rows}").fetchall() for v in row
    }
    kept = used - {None}
    if len(kept) == len(rows.classes):
        return rows, ledger
    unlabelled = rows.scalar(f"SELECT count(*) FROM {rows} WHERE label IS NULL")
    if unlabelled and kept:
        raise DataError(
            f"{unlabelled:,} rows have no label and {len(rows.classes) - len(kept)} classes have no rows",
            hint="drop the rows first: `where: label IS NOT NULL`",
        )
    after = keep_classes(rows, kept) if kept else Rows(rows.con, rows.name, rows.columns, ())
    gone = [c.id for i, c in enumerate(rows.classes) if i not in kept]
    note = f"{len(gone)} classes without rows left the list ({', '.join(gone[:3])}{', …' if len(gone) > 3 else ''})"
    return after, [*ledger, compare("compact", {}, rows, after, [note])]


def _with_shards(
    dataset: Dataset, folder: Path, workers: int, progress: Quiet, *, root: str | None = None
) -> DatasetInfo:
    from curate.ranges import Reader

    reader = Reader(root) if root else dataset.reader()
    records = write_shards(
        dataset.table(), reader, folder, samples_per_shard=dataset.info.recipe.get("samples_per_shard", 10_000),
        workers=workers, progress=progress,
    )  # fmt: skip
    index = file_sha256(folder / SHARD_INDEX)
    return dataset.info.model_copy(update={"shards": records, "index_sha256": index})


def _finish(folder: Path, info: DatasetInfo, seconds: list[list[Any]]) -> None:
    import json

    write_atomic(folder / CARD, card(info).encode())
    record = {
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": [[name, round(spent, 3)] for name, spent in seconds],
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
        "versions": {name: version(name) for name in ("duckdb", "pyarrow", "pydantic")},
    }
    write_atomic(folder / BUILD, (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(folder / INFO, render(info))


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Turn a full disk, and DuckDB's word for it, into an error that a person can act on."""
    try:
        yield
    except CurateError:
        raise
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "space" in str(error).lower()
        if full:
            raise DataError(
                f"{out}: the disk is full; nothing was published", hint="make room, then run the same command"
            ) from error
        raise DataError(f"{out}: {error}", hint="nothing was published") from error
