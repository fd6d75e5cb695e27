"""`results.parquet`: one row a metric of a measurement: of one run, task, shot count, seed and protocol."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import DataError, MissingError, RecipeError
from curate.io.files import write_atomic
from curate.io.working import locked

SCHEMA = pa.schema(
    {
        "run": pa.string(),
        "run_digest": pa.string(),
        "dataset": pa.string(),  # that the run was trained on; null for scratch
        "dataset_digest": pa.string(),
        "task": pa.string(),
        "partition": pa.string(),  # of a task with several official ones, which are averaged over
        "task_digest": pa.string(),
        "shots": pa.string(),  # "5", "full", "total-1000"; "0" of a protocol that learns from no image
        "images_per_class": pa.int32(),  # null where shots is no number
        "seed": pa.int32(),
        "protocol": pa.string(),
        "metric": pa.string(),
        "headline": pa.bool_(),  # whether the task is usually reported in this metric
        "value": pa.float64(),  # 0..1
        "n": pa.int64(),  # test images
        "ci_low": pa.float64(),  # 95 %, over the test images
        "ci_high": pa.float64(),
        "chosen": pa.string(),  # JSON: the hyperparameters that were selected
        # validation; fixed where the draw had no image to spare; none where there was nothing to choose; and test,
        # which flatters: chosen by the test set itself
        "select": pa.string(),
        "train_images": pa.int64(),
        "short_classes": pa.int32(),  # classes with fewer images than shots
        "sampling": pa.string(),  # distinct: those gave all they have; replacement: some images several times
        "image_size": pa.int32(),
        "config": pa.string(),  # JSON: the protocol's settings
        "per_class": pa.string(),  # JSON: the score of each class, where the metric is a mean over classes
        "notes": pa.string(),  # JSON: what was left out of the task, and what else to know of the number
        "device": pa.string(),
        "seconds": pa.float64(),  # of this measurement, less the features that it shares with others
        "version": pa.int32(),  # of the measuring; rows of different ones are not averaged
        "cell": pa.string(),  # digest of everything that decides the value
    }
)
REQUIRED = (
    "run", "run_digest", "task", "shots", "protocol", "metric", "headline", "value", "n", "ci_low", "ci_high",
    "config", "cell",
)  # fmt: skip


def read(path: Path) -> pa.Table:
    """Return the rows of a file of results; none where there is no file yet.

    Raises:
        DataError: it is damaged, or a file of something else.
    """
    if not path.exists():
        return SCHEMA.empty_table()
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read ({error})", hint="move it away and measure again") from error
    if table.schema.names != SCHEMA.names:
        strange = sorted(set(table.schema.names) ^ set(SCHEMA.names))
        raise DataError(
            f"{path}: not results of this version (columns {strange})", hint="write to another file"
        )
    try:
        table = table.cast(SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{path}: not results ({error})", hint="write to another file") from error
    empty = [name for name in REQUIRED if table[name].null_count]
    if empty:
        raise DataError(f"{path}: not results (no {empty[0]} in some rows)", hint="write to another file")
    return table


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add the rows of measurements that the file does not have yet.

    A crash at any moment leaves the old file or the new one. Processes that append to one file wait for each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")):
        old = read(path)
        known = set(old["cell"].to_pylist())
        new = pa.Table.from_pylist([dict(row) for row in rows if row["cell"] not in known], schema=SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables([old, new]), sink)
        write_atomic(path, sink.getvalue().to_pybytes())


def rows_of_measurements(table: pa.Table, digests: Collection[str]) -> pa.Table:
    """Return the rows of some measurements, by their digests."""
    return table.filter(pc.is_in(table["cell"], value_set=pa.array(list(digests), pa.string())))


def check_path(path: Path) -> None:
    """Refuse a path that results cannot be written to.

    Raises:
        RecipeError: it is a folder.
        DataError: it is a file of something else.
        MissingError: its folder cannot be made or written to.
    """
    if path.is_dir():
        raise RecipeError(f"{path}: is a folder", hint=f"name a file, such as {path / 'results.parquet'}")
    read(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise MissingError(
            f"{path}: cannot be written below {folder}", hint="take a folder that can be written"
        )
