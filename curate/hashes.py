"""Hashes of images: of their bytes, and of what they look like."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from curate.datasets import Dataset
from curate.images import BadImage, decode
from curate.ranges import Reader
from curate.rows import Rows, columns_of

Kind = Literal["sha256", "phash"]
COLUMN_KINDS: dict[Kind, str] = {"sha256": "VARCHAR", "phash": "UBIGINT"}
BITS = 64  # of a perceptual hash
BATCH = 20_000  # rows hashed between two inserts
ENOUGH_PIXELS = 128  # of the short side: four times what the perceptual hash looks at

_names = itertools.count()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def phash(data: bytes) -> int | None:
    """Return the 64-bit DCT hash of an image, as the library ImageHash has it; None if it does not decode.

    Source: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions.
    """
    import imagehash

    try:
        return int(str(imagehash.phash(decode(data, at_least=ENOUGH_PIXELS))), 16)
    except BadImage:
        return None


def hashed(rows: Rows, kind: Kind, *, where: str = "true") -> str:
    """Return a relation (key, hash) of rows: the column of that name where they have it, else the bytes are read.

    Args:
        where: which rows; the others are not read.

    Raises:
        DataError: bytes cannot be read.
    """
    name = f"hashes_{next(_names)}"
    if kind in rows.columns:
        rows.con.execute(f"CREATE TEMP VIEW {name} AS SELECT key, {kind} AS hash FROM {rows} WHERE {where}")
        return name
    rows.con.execute(f"CREATE TEMP TABLE {name} (key VARCHAR, hash {COLUMN_KINDS[kind]})")
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
    one = partial(_hash_row, Reader(rows.root), kind)
    with ThreadPoolExecutor(os.cpu_count()) as pool, rows.progress.stage(f"hashing ({kind})", total) as stage:
        for begin in range(0, total, BATCH):
            batch = rows.con.execute(
                f"FROM {todo} WHERE rowid BETWEEN {begin} AND {begin + BATCH - 1}"
            ).fetchall()
            keys = [row[0] for row in batch]
            found = list(pool.map(one, batch, chunksize=64))
            rows.con.execute(
                f"INSERT INTO {name} SELECT unnest(?::VARCHAR[]), unnest(?::{COLUMN_KINDS[kind]}[])",
                [keys, found],
            )
            stage.advance(len(batch))
    rows.con.execute(f"DROP TABLE {todo}")
    return name


def _hash_row(reader: Reader, kind: Kind, row: tuple[str, str, int, int]) -> Any:
    _, file, offset, size = row
    data = reader.read(file, offset, size)
    return sha256(data) if kind == "sha256" else phash(data)


def rows_of(dataset: Dataset, rows: Rows) -> Rows:
    """Return another dataset's rows on the connection of these: what to hold them against."""
    wanted = [c for c in ("key", "file", "offset", "size", "sha256", "phash") if c in dataset.info.columns]
    name = f"other_{next(_names)}"
    rows.con.register(f"{name}_arrow", dataset.table(wanted))
    rows.con.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_arrow")
    rows.con.unregister(f"{name}_arrow")
    other = replace(rows, name=name, columns=columns_of(rows.con, name), root=dataset.byte_root)
    return other


def near_query(a: str, b: str, distance: int) -> str:
    """Return SQL for the pairs (a, b) of hashes of two relations that differ in at most so many bits.

    The bits are cut into `distance` + 1 bands; two hashes that differ in `distance` bits agree in one of them,
    so only hashes that share a band are compared: every pair is found, and few others are looked at.
    """
    width = BITS // (distance + 1)
    bands = []
    for band in range(distance + 1):
        bits = BITS - band * width if band == distance else width
        part = f"(({{0}}.hash >> {band * width}) & {2**bits - 1}::UBIGINT)"
        bands.append(
            f"SELECT x.hash AS a, y.hash AS b FROM {a} x JOIN {b} y ON {part.format('x')} = {part.format('y')} "
            f"WHERE bit_count(xor(x.hash, y.hash)) <= {distance}"
        )
    return " UNION ".join(bands)


def groups(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return each hash of some pairs with the smallest hash that pairs lead to from it."""
    above: dict[int, int] = {}

    def top(x: int) -> int:
        while (up := above.setdefault(x, x)) != x:
            above[x] = above[up]
            x = up
        return x

    for a, b in pairs:
        low, high = sorted((top(a), top(b)))
        above[high] = low
    return {x: top(x) for x in above}
