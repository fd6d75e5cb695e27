"""Images made smaller as they are written: the only step that encodes anything again."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.datasets.dataset import SHARD_INDEX, DatasetInfo, StepRecord
from curate.errors import DataError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.image_headers import BadImage
from curate.io.images import decode
from curate.io.paths import AnyPath
from curate.recipes.fields import Resize

ROWS_PER_READ = 64
ORIENTATION = 0x0112  # the tag of EXIF
TIMED = 64  # images decoded before and after, to say what resizing gains
TIMES = 3  # each; the least counts, which other work on the machine disturbs least


@dataclass(frozen=True)
class Resized:
    """What became of the images.

    Args:
        images, shrunk: how many there are, and how many are smaller now.
        bytes_before, bytes_after: of all images.
        kept: reason → images that should be smaller, cannot be decoded, and keep their bytes.
    """

    images: int = 0
    shrunk: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    kept: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def sum(parts: Iterable[Resized]) -> Resized:
        """Return the sum over shards."""
        totals: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        for part in parts:
            totals.update({k: v for k, v in vars(part).items() if k != "kept"})
            kept.update(part.kept)
        return Resized(**totals, kept=dict(sorted(kept.items())))


def resized(
    rows: pa.Table, reader: ByteRangeReader, resize: Resize, pool: Executor
) -> tuple[pa.Table, dict[int, bytes], Resized]:
    """Shrink the images of some rows whose short side is over the limit.

    Returns:
        The rows with the new `size`, `ext`, `width` and `height`; position → bytes of each image that is smaller
        now; and what became of them.
    """
    names = ("size", "ext", "width", "height")
    values: dict[str, list[Any]] = {c: rows[c].to_pylist() for c in names}
    places = {c: rows[c].to_pylist() for c in ("file", "offset", "size")}
    sides = np.minimum(*(rows[c].to_numpy().astype(float) for c in ("width", "height")))  # unknown: NaN
    large = np.flatnonzero(~(sides <= resize.short)).tolist()
    batches = [large[i : i + ROWS_PER_READ] for i in range(0, len(large), ROWS_PER_READ)]

    def work(batch: list[int]) -> list[tuple[int, Any]]:
        read = reader.read_many(*([places[c][i] for i in batch] for c in ("file", "offset", "size")))
        return [(i, _shrunk(data, resize)) for i, data in zip(batch, read, strict=True)]

    images: dict[int, bytes] = {}
    failed: Counter[str] = Counter()
    for i, result in (pair for pairs in pool.map(work, batches) for pair in pairs):
        if isinstance(result, str):
            failed[result] += 1
        elif result is not None:
            images[i], width, height = result
            for name, value in zip(names, (len(images[i]), "jpg", width, height), strict=True):
                values[name][i] = value
    before, after = sum(places["size"]), sum(values["size"])
    for name in names:
        column = pa.array(values[name], rows.schema.field(name).type)
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows, images, Resized(len(rows), len(images), before, after, dict(sorted(failed.items())))


def _shrunk(data: bytes | Exception, resize: Resize) -> tuple[bytes, int, int] | str | None:
    """Return an image's new bytes, width and height; a reason why it cannot be; or None for one small enough.

    Pixels stay as they are stored: a JPEG that says that it is to be turned goes on saying so. No other metadata
    is kept.
    """
    from PIL import Image

    if isinstance(data, Exception):
        raise data
    try:
        image = decode(data, at_least=2 * resize.short)
    except BadImage as error:
        return str(error).split(":")[0]
    short = min(image.size)
    if short <= resize.short:
        return None
    width, height = (max(round(side * resize.short / short), 1) for side in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    exif = Image.Exif()
    turned = image.getexif().get(ORIENTATION, 1)
    if turned != 1:
        exif[ORIENTATION] = turned
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=resize.quality, exif=exif if turned != 1 else b"")
    return stream.getvalue(), width, height


def resize_record(resize: Resize, info: DatasetInfo, total: Resized) -> StepRecord:
    """Return what the ledger says of resizing."""
    notes = [f"{total.shrunk:,} of {total.images:,} images made smaller"]
    notes += [f"{count:,} kept as they are: {reason}" for reason, count in total.kept.items()]
    classes = len(info.classes)
    return StepRecord(
        step="resize", arguments=resize.model_dump(), rows_in=info.rows, rows_out=info.rows,
        classes_in=classes, classes_out=classes, notes=notes,
    )  # fmt: skip


def gains(total: Resized, rows: pa.Table, reader: ByteRangeReader, folder: AnyPath) -> dict[str, Any]:
    """Return what resizing came to: counts, the ratio of bytes, and that of the time to decode.

    Args:
        rows, reader: the images as they were.
        folder: of the dataset, whose shards are written.
    """
    ratio = total.bytes_after / max(total.bytes_before, 1)
    record = {**vars(total), "bytes_ratio": round(ratio, 4), "decode_time_ratio": None}
    index = pq.ParquetFile(io.BytesIO((folder / SHARD_INDEX).read_bytes())).read()
    sizes = [t.select(["size", "width", "height"]).to_pylist() for t in (rows, index)]
    changed = [i for i, (old, new) in enumerate(zip(*sizes, strict=True)) if old != new]
    chosen = changed[:: max(len(changed) // TIMED, 1)][:TIMED]
    if chosen:
        with ByteRangeReader(folder) as resized_reader:
            before, after = (_read(r.take(chosen), by) for r, by in ((rows, reader), (index, resized_reader)))
        record["decode_time_ratio"] = _time_ratio(before, after)
    return record


def _read(rows: pa.Table, reader: ByteRangeReader) -> list[bytes]:
    """Return the bytes of some images.

    Raises:
        DataError: one that was read a moment ago cannot be.
    """
    images = []
    for data in reader.read_many(*(rows[c].to_pylist() for c in ("file", "offset", "size"))):
        if isinstance(data, DataError):
            raise data
        images.append(data)
    return images


def _time_ratio(before: list[bytes], after: list[bytes]) -> float:
    """Return the time that decoding images takes after over that before, as little disturbed as can be.

    A processor that is busy or asleep slows both alike: an image's decodings before and after take turns.
    """
    total = [0.0, 0.0]
    for pair in zip(before, after, strict=True):
        decode(pair[0])  # the first finds cold caches, and libraries that are not loaded yet
        times = [[_decode_s(data) for data in pair] for _ in range(TIMES)]
        total = [spent + min(each) for spent, each in zip(total, zip(*times, strict=True), strict=True)]
    return round(total[1] / total[0], 4)


def _decode_s(data: bytes) -> float:
    """Return the seconds that decoding an image takes."""
    began = time.perf_counter()
    decode(data)
    return time.perf_counter() - began
