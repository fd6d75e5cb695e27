"""From a manifest to tars: each shard is a pure function of its slice, so any number of workers gives the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.datasets import SHARDS, ShardRecord
from curate.files import sync_folder, write_atomic
from curate.progress import Quiet
from curate.ranges import Reader
from curate.shards.tars import TarWriter

if TYPE_CHECKING:
    import pyarrow as pa


def write_shards(
    table: pa.Table,
    reader: Reader,
    folder: Path,
    *,
    samples_per_shard: int,
    workers: int,
    progress: Quiet | None = None,
) -> list[ShardRecord]:
    """Write the rows of a manifest, in order, as tars and their index.

    A sample is `KEY.cls` (its label), `KEY.EXT` (the original bytes), `KEY.json` (the row) and `KEY.txt` (its
    caption), each where there is one. What an interrupted call finished is not written again.

    Args:
        table: the manifest; `file`, `offset` and `size` are read with `reader`.
        folder: gets `shards/000000.tar`, … and `shards/index.parquet`; `parts/` keeps what a restart needs.
        workers: threads; the bytes do not depend on it.

    Returns:
        One record a shard.

    Raises:
        DataError: a source file is gone or has changed.
    """
    (folder / SHARDS).mkdir(exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    starts = range(0, table.num_rows, samples_per_shard)
    parts: list[dict[str, Any]] = []

    def work(number: int) -> dict[str, Any]:
        rows = table.slice(starts[number], samples_per_shard)
        return _part(folder, number, rows, reader)

    with (
        (progress or Quiet()).stage("writing shards", table.num_rows) as stage,
        ThreadPoolExecutor(workers) as pool,
    ):
        futures = [pool.submit(work, number) for number in range(len(starts))]
        try:
            for future in futures:
                parts.append(future.result())
                stage.advance(parts[-1]["record"]["samples"])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_index(folder, table, parts)
    sync_folder(folder / SHARDS)
    return [ShardRecord(**part["record"]) for part in parts]


def _part(folder: Path, number: int, rows: pa.Table, reader: Reader) -> dict[str, Any]:
    """Write one shard, or find it finished; return its record and where its images are."""
    name = f"{SHARDS}/{number:06d}.tar"
    kept = folder / "parts" / f"{number:06d}.json"
    try:
        part = json.loads(kept.read_text())
        if (folder / name).stat().st_size == part["record"]["bytes"]:
            return part
    except (OSError, ValueError, KeyError):
        pass  # not written yet, or cut off while it was
    writer = TarWriter(folder / name)
    try:
        offsets = [_sample(writer, row, reader) for row in _rows(rows)]
        sha256 = writer.close()
    except BaseException:
        writer.abort()
        raise
    record = {"file": name, "samples": len(offsets), "bytes": writer.bytes, "sha256": sha256}
    part = {"record": record, "offsets": offsets}
    write_atomic(kept, json.dumps(part).encode())
    return part


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=1024):
        yield from batch.to_pylist()


def _sample(writer: TarWriter, row: dict[str, Any], reader: Reader) -> int:
    """Add one sample's members in the order of their names; return the offset of the image."""
    key = row["key"]
    # JSON has no NaN; a value that differs from itself is one, and is left out as NULL is.
    document = {name: value for name, value in row.items() if value is not None and value == value}
    members = {
        row["ext"]: reader.read(row["file"], row["offset"], row["size"]),
        "json": json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=str).encode(),
    }
    if row["label"] is not None:
        members["cls"] = str(row["label"]).encode()
    if row["caption"] is not None:
        members["txt"] = row["caption"].encode()
    offsets = {
        extension: writer.add(f"{key}.{extension}", members[extension]) for extension in sorted(members)
    }
    return offsets[row["ext"]]


def _write_index(folder: Path, table: pa.Table, parts: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [part["record"]["file"] for part in parts for _ in part["offsets"]]
    offsets = [offset for part in parts for offset in part["offsets"]]
    index = {
        "key": table["key"],
        "file": pa.array(files, pa.string()),
        "offset": pa.array(offsets, pa.int64()),
    }
    pq.write_table(
        pa.table(index | {"size": table["size"]}), folder / SHARDS / "index.parquet", compression="zstd"
    )
