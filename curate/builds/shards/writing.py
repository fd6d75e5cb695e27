"""From a manifest to tars: each shard is a pure function of its slice, so any number of workers gives the same."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.builds.shards.members import IMAGE, Members, members, windows
from curate.builds.shards.resizing import Resized, resized
from curate.builds.shards.slices import Slices, boundaries
from curate.datasets.contracts import refuse_no_image
from curate.datasets.dataset import PARTS, SHARD_INDEX, SHARDS, ShardRecord
from curate.errors import DataError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import ordered
from curate.io.files import sync_folder, write_atomic
from curate.io.paths import AnyPath, RemotePath, sizes
from curate.io.progress import Quiet
from curate.io.stores import retry
from curate.io.tars.archive import BLOCK, TarWriter
from curate.recipes.fields import Resize

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW_BYTES = 16 << 20  # of a tar, put together in memory before it is written


@dataclass(frozen=True)
class Layout:
    """How the rows of a manifest go into shards.

    Args:
        bytes_per_shard: of images as the manifest has them, so before `resize`.
        resize: what becomes of large images; None keeps all bytes.
        hashed: whether the column `sha256` is of the images' bytes, and held against them.
    """

    samples_per_shard: int = 10_000
    bytes_per_shard: int | None = None
    resize: Resize | None = None
    hashed: bool = False


@dataclass(frozen=True)
class Written:
    """What writing the shards came to: a record of each, and what resizing did."""

    records: list[ShardRecord]
    resized: Resized | None


def write_shards(
    manifest: pa.Table | AnyPath,
    reader: ByteRangeReader,
    folder: AnyPath,
    layout: Layout,
    *,
    workers: int,
    executor: str = "local",
    progress: Quiet | None = None,
) -> Written:
    """Write the rows of a manifest, in order, as tars and their index.

    A sample is `KEY.cls` (its label), `KEY.EXT` (the original bytes), `KEY.json` (the row) and `KEY.txt` (its
    caption), each where there is one. What an interrupted call finished is not written again.

    Args:
        manifest: the rows, or the Parquet file of them; `file`, `offset` and `size` are read with `reader`.
        folder: gets `shards/000000.tar`, … and `shards/index.parquet`; `parts/` keeps what a restart needs.
        workers: threads; the bytes do not depend on it, nor on the executor.
        executor: `local` or `ray`; Ray's workers need to see the same paths.

    Raises:
        DataError: a source file is gone or has changed, or is no image of its kind; or the store of either fails.
    """
    if not isinstance(folder, RemotePath):
        (folder / SHARDS).mkdir(exist_ok=True)
        (folder / PARTS).mkdir(exist_ok=True)
    rows = Slices(manifest)
    columns = rows.columns(["key", "size"])
    bounds = boundaries(
        columns["size"].fill_null(0).to_numpy(),
        samples_per_shard=layout.samples_per_shard,
        bytes_per_shard=layout.bytes_per_shard,
    )
    count = len(bounds) - 1
    threads = max(workers // max(count, 1), 1)
    task = WriteShard(rows, reader, folder, bounds, layout, threads)
    finished = _finished(folder, count)
    with (progress or Quiet()).stage("writing shards", len(columns)) as stage:
        stage.advance(sum(part["record"]["samples"] for part in finished.values()))
        missing = [number for number in range(count) if number not in finished]
        for number, part in zip(
            missing, ordered(task, missing, executor=executor, workers=workers), strict=True
        ):
            finished[number] = part
            stage.advance(part["record"]["samples"])
    parts = [finished[number] for number in range(count)]
    _write_index(folder, columns, parts)
    total = Resized.sum([Resized(**part["resized"]) for part in parts]) if layout.resize else None
    return Written([ShardRecord(**part["record"]) for part in parts], total)


def _finished(folder: AnyPath, count: int) -> dict[int, dict[str, Any]]:
    """Return the parts of the shards that are there and whole."""
    bytes_of = sizes(folder)
    files = {f"{PARTS}/{number:06d}.json": number for number in range(count)}
    files = {file: number for file, number in files.items() if file in bytes_of}
    finished = {}
    with ByteRangeReader(folder) as reader:
        whole = [None] * len(files)
        for number, data in zip(files.values(), reader.read_many([*files], whole, whole), strict=True):
            if isinstance(data, DataError):
                raise data
            try:
                part = json.loads(data)
                if bytes_of.get(part["record"]["file"]) == part["record"]["bytes"]:
                    finished[number] = part
            except (ValueError, KeyError):
                pass  # cut off while it was written
    return finished


@dataclass(frozen=True)
class WriteShard:
    """Writes shards, each from its rows alone; travels to a worker with paths, not tables.

    Args:
        bounds: the first row of each shard, and one past the last of all.
        threads: that resize the images of one shard.
    """

    rows: Slices
    reader: ByteRangeReader
    folder: AnyPath
    bounds: list[int] = field(repr=False)
    layout: Layout
    threads: int

    def __call__(self, number: int) -> dict[str, Any]:
        """Write a shard; return its record, where its images are, and what became of their sizes."""
        rows = self.rows.read(self.bounds[number], self.bounds[number + 1])
        images: dict[int, bytes] = {}
        changes: Resized | None = None
        if self.layout.resize:
            with ThreadPoolExecutor(self.threads) as pool:
                rows, images, changes = resized(rows, self.reader, self.layout.resize, pool)
        tar = self.folder / f"{SHARDS}/{number:06d}.tar"

        def write() -> tuple[list[int], int, str]:
            return _write_tar(tar, self.folder / PARTS, rows, self.reader, images, self.layout.hashed)

        offsets, size, sha256 = retry(str(tar), write) if isinstance(tar, RemotePath) else write()
        record = {"file": f"{SHARDS}/{number:06d}.tar", "samples": len(offsets), "bytes": size}
        part = {
            "record": record | {"sha256": sha256},
            "offsets": offsets,
            "resized": changes and vars(changes),
        }
        if self.layout.resize:
            part["images"] = {c: rows[c].to_pylist() for c in ("size", "ext", "width", "height")}
        write_atomic(self.folder / f"{PARTS}/{number:06d}.json", json.dumps(part).encode())
        return part


def _write_tar(
    path: AnyPath,
    scratch: AnyPath,
    rows: pa.Table,
    reader: ByteRangeReader,
    images: dict[int, bytes],
    hashed: bool,
) -> tuple[list[int], int, str]:
    """Write a tar or leave nothing; return the offset of each image, the tar's bytes and its sha256."""
    writer = TarWriter(path, scratch)
    try:
        offsets = _write(writer, rows, reader, images, hashed)
        sha256 = writer.close()
        return offsets, writer.bytes, sha256
    except BaseException:
        writer.abort()
        raise


def _write(
    writer: TarWriter, rows: pa.Table, reader: ByteRangeReader, images: dict[int, bytes], hashed: bool
) -> list[int]:
    """Write the samples of a shard, a window of blocks at a time; return the offset of each image."""
    layout = members(rows)
    files, offsets, sizes, kinds = (rows[c].to_pylist() for c in ("file", "offset", "size", "ext"))
    hashes = rows["sha256"].to_pylist() if hashed else []
    for first, end in windows(layout, WINDOW_BYTES // BLOCK):
        base = int(layout.starts[first])
        last = int(layout.starts[end]) if end < len(layout.sizes) else layout.blocks
        block = np.zeros((last - base, BLOCK), np.uint8)
        view = block.data.cast("B")
        _put_heads(layout, first, end, base, block)
        _put_texts(layout, first, end, base, view)
        numbers, places = _images(layout, first, end)
        views = [
            view[at : at + sizes[row]]
            for row, at in zip(numbers, ((p - base) * BLOCK for p in places), strict=True)
        ]
        rest = []
        for row, into in zip(numbers, views, strict=True):
            if row in images:
                into[:] = images[row]
            else:
                rest.append((row, into))
        reader.read_all_into([files[r] for r, _ in rest], [offsets[r] for r, _ in rest], [v for _, v in rest])
        for row, into in rest:
            if hashed:
                _refuse_other(files[row], into, hashes[row])
            refuse_no_image(into, kinds[row], files[row])
        writer.put(view)
    return [place * BLOCK for place in _images(layout, 0, len(layout.sizes))[1]]


def _refuse_other(file: str, image: memoryview, sha256: str | None) -> None:
    """Refuse an image that is not the one whose sha256 the manifest has."""
    if sha256 is not None and hashlib.sha256(image).hexdigest() != sha256:
        raise DataError(
            f"{file}: its bytes are not those that were indexed (sha256 differs)",
            hint="the file changed; build again",
        )


def _images(layout: Members, first: int, end: int) -> tuple[list[int], list[int]]:
    """Return the rows and places of the images among some members."""
    images = layout.kinds[first:end] == IMAGE
    return layout.rows[first:end][images].tolist(), layout.places[first:end][images].tolist()


def _put_heads(layout: Members, first: int, end: int, base: int, block: np.ndarray) -> None:
    starts = layout.starts[first:end] - base
    if isinstance(layout.heads, np.ndarray):
        block[starts] = layout.heads[first:end]
        return
    for start, head in zip(starts.tolist(), layout.heads[first:end], strict=True):
        block[start : start + len(head) // BLOCK] = np.frombuffer(head, np.uint8).reshape(-1, BLOCK)


def _put_texts(layout: Members, first: int, end: int, base: int, view: memoryview) -> None:
    places = (layout.places[first:end] - base) * BLOCK
    for kind, texts in enumerate(layout.texts):
        those = layout.kinds[first:end] == kind
        for row, at in zip(layout.rows[first:end][those].tolist(), places[those].tolist(), strict=True):
            text = texts[row]
            assert text is not None
            view[at : at + len(text)] = text


def _write_index(folder: AnyPath, columns: pa.Table, parts: list[dict[str, Any]]) -> None:
    """Write where each image is, row for row with the manifest; after resizing also what it is now."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    samples = [len(part["offsets"]) for part in parts]
    files = np.repeat(np.array([part["record"]["file"] for part in parts]), samples)
    offsets = np.concatenate([np.zeros(0, np.int64), *(part["offsets"] for part in parts)])
    index = {
        "key": columns["key"],
        "file": pa.array(files, pa.string()),
        "offset": pa.array(offsets, pa.int64()),
        "size": columns["size"],
    }
    kinds = {"size": pa.int64(), "ext": pa.string(), "width": pa.int32(), "height": pa.int32()}
    if parts and "images" in parts[0]:
        index |= {c: pa.array([v for p in parts for v in p["images"][c]], kind) for c, kind in kinds.items()}
    stream = io.BytesIO()
    pq.write_table(pa.table(index), stream, compression="zstd")
    write_atomic(folder / SHARD_INDEX, stream.getvalue())
    if not isinstance(folder, RemotePath):
        sync_folder(folder / SHARDS)
