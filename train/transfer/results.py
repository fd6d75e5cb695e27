"""`results.parquet`: one row a metric of a cell; a cell is one run, task, shot count, seed and protocol."""

from __future__ import annotations

import fcntl
import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.errors import DataError, MissingError, RecipeError
from curate.io.files import write_atomic

SCHEMA = pa.schema(
    {
        "run": pa.string(),
        "run_digest": pa.string(),
        "dataset": pa.string(),  # that the run learned from; null for scratch
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
        "chosen": pa.string(),  # JSON: the hyperparameters that were settled on
        # validation; fixed where the draw had no image to spare; none where there was nothing to choose; and test,
        # which flatters: chosen by the test set itself
        "select": pa.string(),
        "train_images": pa.int64(),
        "short_classes": pa.int32(),  # classes with fewer images than shots
        "sampling": pa.string(),  # distinct: those gave all they have; replacement: some images several times
        "image_size": pa.int32(),
        "config": pa.string(),  # JSON: the protocol's settings
        "per_class": pa.string(),  # JSON: what each class scored, where the metric is a mean over classes
        "notes": pa.string(),  # JSON: what was left out of the task, and what else to know of the number
        "device": pa.string(),
        "seconds": pa.float64(),  # of this cell; features are shared by cells and not in it
        "version": pa.int32(),  # of the measuring; rows of different ones are not averaged
        "cell": pa.string(),  # digest of everything that decides the value
    }
)
REQUIRED = (
    "run", "run_digest", "task", "shots", "protocol", "metric", "headline", "value", "n", "ci_low", "ci_high",
    "config", "cell",
)  # fmt: skip
GROUP = (
    "run", "run_digest", "dataset", "dataset_digest", "task", "task_digest", "shots", "images_per_class",
    "protocol", "image_size", "config", "sampling", "select", "metric", "headline", "version",
)  # fmt: skip
SUMMARY = pa.schema(
    [SCHEMA.field(name) for name in GROUP]
    + [pa.field("seeds", pa.int32()), pa.field("n", pa.int64())]
    + [pa.field(name, pa.float64()) for name in ("mean", "sd", "ci_low", "ci_high", "test_low", "test_high")]
)


def read(path: Path) -> pa.Table:
    """Return the rows of a file of results; none where there is no file yet.

    Raises:
        DataError: it is damaged, or not such a file.
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
    """Add rows whose cells are not there yet; a crash at any moment leaves the old file or the new one.

    Processes that append to one file wait for each other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path):
        old = read(path)
        known = set(old["cell"].to_pylist())
        new = pa.Table.from_pylist([dict(row) for row in rows if row["cell"] not in known], schema=SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables([old, new]), sink)
        write_atomic(path, sink.getvalue().to_pybytes())


def of_cells(table: pa.Table, cells: Collection[str]) -> pa.Table:
    """Return the rows of some cells."""
    return table.filter(pc.is_in(table["cell"], value_set=pa.array(list(cells), pa.string())))


def check_path(path: Path) -> None:
    """Refuse a place that results cannot be written to.

    Raises:
        RecipeError: it is a folder.
        DataError: there is a file that is none of ours.
        MissingError: its folder cannot be made, or nothing be written there.
    """
    if path.is_dir():
        raise RecipeError(f"{path}: is a folder", hint=f"name a file, such as {path / 'results.parquet'}")
    read(path)
    there = next(one for one in path.absolute().parents if one.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise MissingError(
            f"{path}: cannot be written below {there}", hint="take a folder that can be written"
        )


def summary(table: pa.Table) -> pa.Table:
    """Return the mean over seeds and partitions of each run, task, shot count, protocol (with its settings) and metric.

    One 95 % interval is Student's over them: it says how far the draws spread, not how many test images there are. One
    alone has none. The other is the mean of those over the test images. Of a partition that was measured with several
    contents, the last counts.

    Returns:
        the columns that name the group (`select` is "test" or null; `task_digest` is null where there are partitions),
        then seeds, n (the fewest test images), mean, sd, ci_low and ci_high (null for one seed), test_low, test_high.
    """
    groups: dict[tuple, dict[tuple, dict[str, Any]]] = defaultdict(dict)
    for row in table.to_pylist():
        row = row | {
            "select": "test" if row["select"] == "test" else None
        }  # how else it chose may differ by draw
        if row["partition"] is not None:
            row["task_digest"] = None  # of each partition its own
        groups[tuple(row[name] for name in GROUP)][row["partition"], row["seed"]] = row
    rows = [dict(zip(GROUP, key, strict=True)) | _told(list(found.values())) for key, found in groups.items()]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _told(rows: list[dict[str, Any]]) -> dict[str, Any]:
    spread = _spread([row["value"] for row in rows])
    below = math.fsum(row["value"] - row["ci_low"] for row in rows) / len(rows)
    above = math.fsum(row["ci_high"] - row["value"] for row in rows) / len(rows)
    tested = {"test_low": spread["mean"] - below, "test_high": spread["mean"] + above}
    return spread | tested | {"n": min(row["n"] for row in rows)}


def _spread(values: list[float]) -> dict[str, Any]:
    from scipy.stats import t  # type: ignore[import-untyped]

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return {"seeds": count, "mean": mean, "sd": None, "ci_low": None, "ci_high": None}
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * sd / math.sqrt(count)
    return {"seeds": count, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file of results; it goes with the process."""
    with open(path.with_name(f".{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
