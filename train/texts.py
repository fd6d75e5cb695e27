"""Columns of texts, larger than memory if need be."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from curate.files import cache_folder

MAX_BYTES = 64 << 20  # of a column that is kept in memory


class Texts:
    """Texts by number: in memory where they are few or repeat themselves, else in a mapped file.

    A file is made where the cache is and has no name, so it goes when nobody uses it any more.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        if column.nbytes > MAX_BYTES:
            column = column.dictionary_encode().unify_dictionaries()
        if column.nbytes > MAX_BYTES:
            column = _mapped(column)
        self._column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def __len__(self) -> int:
        return len(self._column)

    def take(self, rows: np.ndarray) -> list[str]:
        """Return the texts of rows."""
        return self._column.take(pa.array(rows)).to_pylist()

    @classmethod
    def joined(cls, parts: Sequence[Texts]) -> Texts:
        """Return several columns as one, in their order."""
        if len(parts) == 1:
            return parts[0]
        return cls(pa.chunked_array([part._column.cast(pa.large_string()) for part in parts]))


def _mapped(column: pa.ChunkedArray) -> pa.ChunkedArray:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=folder, suffix=".arrow")
    os.close(handle)
    try:
        schema = pa.schema([("text", pa.large_string())])
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(
                pa.record_batch([column.cast(pa.large_string()).combine_chunks()], schema=schema)
            )
        return pa.ipc.open_file(pa.memory_map(path)).read_all()["text"]
    finally:
        os.unlink(path)
