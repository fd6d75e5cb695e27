"""Hashes of images: of their bytes, and of what they look like."""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from curate.datasets.dataset import Dataset
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import cores
from curate.io.image_headers import BadImage
from curate.io.images import decode
from curate.rows.relation import Rows, columns_of

Kind = Literal["sha256", "phash"]
# The columns of each kind. Of an image and one that was cut to its middle square the second hashes are near.
COLUMNS: dict[Kind, dict[str, str]] = {
    "sha256": {"sha256": "VARCHAR"},
    "phash": {"phash": "UBIGINT", "phash_square": "UBIGINT"},
}
BATCH = 20_000  # rows hashed between two inserts
ENOUGH_PIXELS = 128  # of the short side: four times what the perceptual hash looks at

_names = itertools.count()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hashes(data: bytes) -> tuple[int, int] | None:
    """Return the 64-bit DCT hashes of an image and of its middle square, as the library ImageHash has them.

    They are those of the bits that are above the median, so of nearly any image 32 of the 64 are set, and two hashes
    differ in an even number of bits. None for an image that does not decode.

    Source: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions.
    """
    import imagehash

    try:
        image = decode(data, at_least=ENOUGH_PIXELS).convert("L")
    except BadImage:
        return None
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = image if width == height else image.crop((left, top, left + side, top + side))
    whole = _number(imagehash.phash(image))
    return whole, whole if square is image else _number(imagehash.phash(square))


def _number(bits: Any) -> int:
    return int(str(bits), 16)


def hashed(rows: Rows, kind: Kind, *, where: str = "true") -> str:
    """Return a relation of rows: key, and the columns of a kind; theirs if they have them all, else bytes are read.

    Args:
        where: which rows; the others are not read.

    Raises:
        DataError: bytes cannot be read.
    """
    name = f"hashes_{next(_names)}"
    columns = COLUMNS[kind]
    if columns.keys() <= rows.columns.keys():
        rows.con.execute(
            f"CREATE TEMP VIEW {name} AS SELECT key, {', '.join(columns)} FROM {rows} WHERE {where}"
        )
        return name
    definitions = ", ".join(f"{column} {type_}" for column, type_ in columns.items())
    rows.con.execute(f"CREATE TEMP TABLE {name} (key VARCHAR, {definitions})")
    if rows.planning:
        return name
    rows.refuse(
        f"({where}) AND file IS NULL", "are URLs whose images nobody has fetched",
        hint="`curate fetch` brings them: run this step over its pool",
    )  # fmt: skip
    assert rows.root is not None
    todo = f"todo_{next(_names)}"
    rows.con.execute(
        f'CREATE TEMP TABLE {todo} AS SELECT key, file, "offset", size FROM {rows} WHERE {where} '
        'ORDER BY file, "offset"'
    )
    total = rows.scalar(f"SELECT count(*) FROM {todo}")
    hash_row = partial(_hash_row, ByteRangeReader(rows.root), kind)
    lists = ", ".join(f"unnest(?::{type_}[])" for type_ in columns.values())
    with ThreadPoolExecutor(cores()) as pool, rows.progress.stage(f"hashing ({kind})", total) as stage:
        for begin in range(0, total, BATCH):
            batch = rows.con.execute(
                f"FROM {todo} WHERE rowid BETWEEN {begin} AND {begin + BATCH - 1}"
            ).fetchall()
            keys = [row[0] for row in batch]
            hashes = list(pool.map(hash_row, batch, chunksize=64))
            rows.con.execute(
                f"INSERT INTO {name} SELECT unnest(?::VARCHAR[]), {lists}",
                [keys, *map(list, zip(*hashes, strict=True))],
            )
            stage.advance(len(batch))
    rows.con.execute(f"DROP TABLE {todo}")
    return name


def _hash_row(reader: ByteRangeReader, kind: Kind, row: tuple[str, str, int, int]) -> tuple[Any, ...]:
    """Return the values of a kind's columns for a row."""
    _, file, offset, size = row
    data = reader.read(file, offset, size)
    return (sha256(data),) if kind == "sha256" else perceptual_hashes(data) or (None, None)


def rows_of(dataset: Dataset, rows: Rows) -> Rows:
    """Return another dataset's rows on the connection of these: what to hold them against."""
    wanted = [
        c
        for c in ("key", "file", "offset", "size", "sha256", "phash", "phash_square")
        if c in dataset.info.columns
    ]
    name = f"other_{next(_names)}"
    rows.con.register(f"{name}_arrow", dataset.table(wanted))
    rows.con.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_arrow")
    rows.con.unregister(f"{name}_arrow")
    other = replace(rows, name=name, columns=columns_of(rows.con, name), root=dataset.byte_root)
    return other
