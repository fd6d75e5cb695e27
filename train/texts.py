"""Columns of texts, larger than memory if need be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.files import cache_folder

MAX_BYTES = 64 << 20  # of a column that is kept in memory
LOOKED_AT = 100_000  # texts, to see whether they repeat themselves


class Texts:
    """Texts by number: in memory where they are few or repeat themselves, else in a mapped file.

    A file is made where the cache is and has no name, so it goes when nobody uses it any more.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column: pa.Array
        if column.nbytes <= MAX_BYTES:
            self._column = column.combine_chunks()
        elif _repeat(column):
            self._column = column.combine_chunks().dictionary_encode()
        else:
            self._column = _mapped(column)

    def __len__(self) -> int:
        return len(self._column)

    def take(self, rows: np.ndarray) -> list[Any]:
        """Return the texts of rows; None where there is none."""
        return self._column.take(pa.array(rows)).to_pylist()

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Return several columns as one, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(pa.chunked_array([part._column.cast(pa.large_string()) for part in parts]))


def _repeat(column: pa.ChunkedArray) -> bool:
    """Whether there are few different texts, by the first of them."""
    first = column.slice(0, LOOKED_AT)
    return pc.count_distinct(first).as_py() * 10 < len(first)


def _mapped(column: pa.ChunkedArray) -> pa.Array:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=folder, suffix=".arrow")
    os.close(handle)
    try:
        schema = pa.schema([("text", pa.large_string())])
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            whole = column.cast(pa.large_string()).combine_chunks()
            writer.write_batch(pa.record_batch([whole], schema=schema))
        return pa.ipc.open_file(pa.memory_map(path)).get_batch(0).column(0)
    finally:
        os.unlink(path)
