"""The members of samples in bulk: their texts, their order, and where each lies in its tar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from curate.errors import DataError
from curate.io.tars.archive import BLOCK, MAX_MEMBER_BYTES, NAME_BYTES, header, headers
from curate.rows.sql import quoted

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS = ("cls", "json", "txt")
IMAGE = len(TEXTS)  # the kind of a member that is an image; the others are positions in TEXTS


@dataclass(frozen=True)
class Members:
    """The members of the samples of one shard, in the order of the tar. R rows, M members.

    Args:
        rows: which sample each belongs to.
        kinds: position in `TEXTS`, or `IMAGE`.
        heads: the headers of all, in order; 512 bytes each but for the rare long name.
        texts: for each of `TEXTS` the R values; None where a row has none.
        sizes: bytes.
        starts: where the header begins, in blocks of 512 bytes.
        places: where the bytes begin, in blocks.
        blocks: of all together.
    """

    rows: np.ndarray
    kinds: np.ndarray
    heads: list[bytes] | np.ndarray
    texts: list[list[bytes | None]]
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
    _refuse_sizes(rows)
    keys = np.array([key.encode() for key in rows["key"].to_pylist()], "S")
    extensions, codes = np.unique(np.array(rows["ext"].to_pylist(), "U"), return_inverse=True)
    texts = _texts(rows)
    lengths = np.full((rows.num_rows, IMAGE + 1), -1, np.int64)
    for column, values in enumerate(texts):
        lengths[:, column] = [-1 if value is None else len(value) for value in values]
    lengths[:, IMAGE] = rows["size"].to_numpy()
    orders = np.array([np.argsort([*TEXTS, e]) for e in extensions], np.int64).reshape(-1, IMAGE + 1)
    kinds = orders[codes]  # of each row, in the order of the extensions
    sizes = np.take_along_axis(lengths, kinds, axis=1).ravel()
    present = sizes >= 0
    row = np.repeat(np.arange(rows.num_rows), IMAGE + 1)[present]
    kind = kinds.ravel()[present]
    suffix = np.where(kind == IMAGE, codes[row] + IMAGE, kind)
    names = _names(keys, [*TEXTS, *extensions], row, suffix)
    return _laid_out(row, kind, names, texts, sizes[present])


def _refuse_sizes(rows: pa.Table) -> None:
    import pyarrow.compute as pc

    least = pc.min_max(rows["size"]).as_py()
    if rows["size"].null_count or (least["max"] or 0) > MAX_MEMBER_BYTES:
        for key, extension, size in zip(*(rows[c].to_pylist() for c in ("key", "ext", "size")), strict=True):
            if size is None or size > MAX_MEMBER_BYTES:
                what = "unknown size" if size is None else f"{size:,} bytes"
                raise DataError(
                    f"{key}.{extension}: {what} does not fit into a tar member", hint="leave this sample out"
                )


def _names(keys: np.ndarray, extensions: list[str], row: np.ndarray, suffix: np.ndarray) -> np.ndarray:
    """Return `KEY.EXTENSION` of each member, as an array of bytes."""
    width = keys.dtype.itemsize + 1 + max(map(len, extensions))
    names = np.zeros((len(row), width), np.uint8)
    names[:, : keys.dtype.itemsize] = keys.view(np.uint8).reshape(len(keys), -1)[row]
    ends = np.char.str_len(keys)[row]
    for number, extension in enumerate(extensions):
        [those] = np.nonzero(suffix == number)
        for i, letter in enumerate(f".{extension}".encode()):
            names[those, ends[those] + i] = letter
    return names.view(f"S{width}").ravel()


def _laid_out(
    row: np.ndarray, kind: np.ndarray, names: np.ndarray, texts: list[list[bytes | None]], sizes: np.ndarray
) -> Members:
    longest = int(np.char.str_len(names).max(initial=0))
    heads: list[bytes] | np.ndarray
    if longest <= NAME_BYTES:
        heads = headers(names, sizes)
        head_blocks = np.ones(len(names), np.int64)
    else:
        heads = [
            header(name.decode(), size) for name, size in zip(names.tolist(), sizes.tolist(), strict=True)
        ]
        head_blocks = np.array([len(h) // BLOCK for h in heads], np.int64)
    ends = np.cumsum(head_blocks + -(-sizes // BLOCK))
    starts = np.concatenate([[0], ends[:-1]]) if len(names) else np.zeros(0, np.int64)
    blocks = int(ends[-1]) if len(names) else 0
    return Members(row, kind, heads, texts, sizes, starts, starts + head_blocks, blocks)


def windows(members: Members, blocks: int) -> Iterator[tuple[int, int]]:
    """Cut the members into runs of about so many blocks: (first, one past the last)."""
    first, count = 0, len(members.sizes)
    while first < count:
        end = int(np.searchsorted(members.starts, members.starts[first] + blocks))
        yield first, max(end, first + 1)
        first = max(end, first + 1)


def _texts(rows: pa.Table) -> list[list[bytes | None]]:
    """Return the bytes of `.cls`, `.json` and `.txt` of each row; None where it has none."""
    with _connection().cursor() as con:
        con.register("rows", rows)
        answer = con.sql(
            f"SELECT encode(label::VARCHAR) AS cls, encode({_json(rows)}) AS json, encode(caption) AS txt FROM rows"
        ).to_arrow_table()
    return [answer[c].to_pylist() for c in TEXTS]


@lru_cache(1)
def _connection() -> Any:
    return duckdb.connect()  # 11 ms, a tenth of what the rest of a shard takes: one a process


def _json(rows: pa.Table) -> str:
    """Return SQL for a row as JSON, without what is NULL."""
    import pyarrow.types as kinds

    columns = [c for c in rows.column_names if rows[c].null_count < rows.num_rows]
    floats = {c for c in columns if kinds.is_floating(rows.schema.field(c).type)}
    # JSON has no NaN: it is left out, as NULL is.
    value = {c: f"CASE WHEN isfinite({quoted(c)}) THEN {quoted(c)} END" for c in floats}
    body = ", ".join(f"{quoted(c)} := {value.get(c, quoted(c))}" for c in columns)
    whole = f"to_json(struct_pack({body}))"
    if any(rows[c].null_count or c in floats or kinds.is_nested(rows.schema.field(c).type) for c in columns):
        whole = f"json_merge_patch('{{}}', {whole})"  # takes NULLs away, in twice the time
    return f"{whole}::VARCHAR"
