"""From a manifest to tars: each shard is a pure function of its slice, so any number of workers gives the same."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.datasets import SHARDS, ShardRecord
from curate.files import sync_folder, write_atomic
from curate.progress import Quiet
from curate.ranges import Reader
from curate.shards.members import members, windows
from curate.shards.tars import BLOCK, TarWriter

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW_BYTES = 16 << 20  # of a tar, put together in memory before it is written


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
        offsets = _write(writer, rows, reader)
        sha256 = writer.close()
    except BaseException:
        writer.abort()
        raise
    record = {"file": name, "samples": len(offsets), "bytes": writer.bytes, "sha256": sha256}
    part = {"record": record, "offsets": offsets}
    write_atomic(kept, json.dumps(part).encode())
    return part


def _write(writer: TarWriter, rows: pa.Table, reader: Reader) -> list[int]:
    """Write the samples of a shard, a window of blocks at a time; return the offset of each image."""
    found = members(rows)
    files, offsets, sizes = (rows[c].to_pylist() for c in ("file", "offset", "size"))
    for first, end in windows(found, WINDOW_BYTES // BLOCK):
        base = int(found.starts[first])
        last = int(found.starts[end]) if end < len(found.sizes) else found.blocks
        block = np.zeros((last - base, BLOCK), np.uint8)
        view = block.data.cast("B")
        if isinstance(found.heads, np.ndarray):
            block[found.starts[first:end] - base] = found.heads[first:end]
        else:
            for start, head in zip(found.starts[first:end].tolist(), found.heads[first:end], strict=True):
                view[(start - base) * BLOCK : (start - base) * BLOCK + len(head)] = head
        places = ((found.places[first:end] - base) * BLOCK).tolist()
        for place, row, text in zip(
            places, found.rows[first:end].tolist(), found.texts[first:end], strict=True
        ):
            if text is None:
                reader.read_into(files[row], offsets[row], view[place : place + sizes[row]])
            else:
                view[place : place + len(text)] = text
        writer.put(view)
    images = [place for place, text in zip(found.places.tolist(), found.texts, strict=True) if text is None]
    return [place * BLOCK for place in images]


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
