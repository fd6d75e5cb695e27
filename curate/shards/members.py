"""The members of samples in bulk: their texts, their order, and where each lies in its tar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from curate.errors import DataError
from curate.manifests import quoted
from curate.shards.tars import BLOCK, MAX_MEMBER_BYTES, header, headers

IMAGE = -1  # stands for a member's bytes: the image's, which lie elsewhere


@dataclass(frozen=True)
class Members:
    """The members of the samples of one shard, in the order of the tar. M members.

    Args:
        rows: which sample each belongs to.
        heads: the headers of all, in order; 512 bytes each but for the rare long name.
        texts: the bytes of each; None for an image.
        sizes: bytes.
        starts: where the header begins, in blocks of 512 bytes.
        places: where the bytes begin, in blocks.
        blocks: of all together.
    """

    rows: np.ndarray
    heads: list[bytes] | np.ndarray
    texts: list[bytes | None]
    sizes: np.ndarray
    starts: np.ndarray
    places: np.ndarray
    blocks: int


def members(rows: pa.Table) -> Members:
    """Lay out the samples of a shard: `KEY.cls` (the label), `KEY.EXT` (the image), `KEY.json` (the row), `KEY.txt`.

    Each is there where there is something to say; in a sample they stand in the order of their extensions.

    Raises:
        DataError: an image is too large for a tar, or its size is not known.
    """
    keys, extensions, sizes = (rows[c].to_pylist() for c in ("key", "ext", "size"))
    texts = dict(zip(("cls", "json", "txt"), _texts(rows), strict=True))
    row: list[int] = []
    names: list[str] = []
    found: list[bytes | None] = []
    size: list[int] = []
    orders = {e: sorted({"cls", "json", "txt", e}) for e in set(extensions)}
    for i, (key, extension) in enumerate(zip(keys, extensions, strict=True)):
        for kind in orders[extension]:
            if kind == extension:
                text, length = None, sizes[i]
                if length is None or length > MAX_MEMBER_BYTES:
                    raise DataError(
                        f"{key}.{extension}: {'unknown size' if length is None else f'{length:,} bytes'} does not "
                        "fit into a tar member",
                        hint="leave this sample out",
                    )
            elif (text := texts[kind][i]) is not None:
                length = len(text)
            else:
                continue
            row.append(i)
            names.append(f"{key}.{kind}")
            found.append(text)
            size.append(length)
    return _laid_out(row, names, found, np.array(size, np.int64))


def _laid_out(row: list[int], names: list[str], texts: list[bytes | None], sizes: np.ndarray) -> Members:
    raw = [name.encode() for name in names]
    longest = max(map(len, raw), default=0)
    heads: list[bytes] | np.ndarray
    if longest <= 100:
        heads = headers(raw, sizes)
        head_blocks = np.ones(len(raw), np.int64)
    else:
        heads = [header(name, int(size)) for name, size in zip(names, sizes, strict=True)]
        head_blocks = np.array([len(h) // BLOCK for h in heads], np.int64)
    ends = np.cumsum(head_blocks + -(-sizes // BLOCK))
    starts = np.concatenate([[0], ends[:-1]]) if len(raw) else np.zeros(0, np.int64)
    blocks = int(ends[-1]) if len(raw) else 0
    return Members(np.array(row, np.int64), heads, texts, sizes, starts, starts + head_blocks, blocks)


def windows(members: Members, blocks: int) -> Iterator[tuple[int, int]]:
    """Cut the members into runs of about so many blocks: (first, one past the last)."""
    first, count = 0, len(members.sizes)
    while first < count:
        end = int(np.searchsorted(members.starts, members.starts[first] + blocks))
        yield first, max(end, first + 1)
        first = max(end, first + 1)


def _texts(rows: pa.Table) -> tuple[list[bytes | None], ...]:
    """Return the bytes of `.cls`, `.json` and `.txt` of each row; None where it has none."""
    with duckdb.connect() as con:
        con.register("rows", rows)
        kinds = {c[0]: str(c[1]) for c in con.execute("DESCRIBE rows").fetchall()}
        # JSON has no NaN: it is left out, as NULL is, which the merge with nothing takes away.
        value = {c: f"CASE WHEN isfinite({quoted(c)}) THEN {quoted(c)} END" for c, k in kinds.items()
                 if k in ("FLOAT", "DOUBLE")}  # fmt: skip
        body = ", ".join(f"{quoted(c)} := {value.get(c, quoted(c))}" for c in kinds)
        answer = con.sql(
            "SELECT encode(label::VARCHAR) AS cls, encode(json_merge_patch('{}', to_json(struct_pack("
            f"{body})))::VARCHAR) AS json, encode(caption) AS txt FROM rows"
        ).to_arrow_table()
    return tuple(answer[c].to_pylist() for c in ("cls", "json", "txt"))
