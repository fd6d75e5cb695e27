"""Slices of a manifest, read without the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.io.paths import AnyPath, RemotePath

ROW_GROUPS = 4  # kept: neighbouring shards want the same (DuckDB writes 122,880 rows into one)


class Slices:
    """The rows of a manifest, a few at a time. Travels to a worker as the path that it is.

    Args:
        manifest: the Parquet file, or its rows.
    """

    def __init__(self, manifest: pa.Table | AnyPath) -> None:
        self.manifest = manifest
        self._group = lru_cache(ROW_GROUPS)(self._read_group)

    def __getstate__(self) -> dict[str, Any]:
        return {"manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["manifest"])  # type: ignore[misc]

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Return all rows of some columns."""
        if isinstance(self.manifest, pa.Table):
            return self.manifest.select(names)
        with self._open() as file:
            return file.read(names)

    def read(self, first: int, end: int) -> pa.Table:
        """Return the rows from the first to one before the end."""
        if isinstance(self.manifest, pa.Table):
            return self.manifest.slice(first, end - first)
        found, at = [], 0
        for number, count in enumerate(self._counts):
            if at < end and at + count > first:
                start = max(first - at, 0)
                found.append(self._group(number).slice(start, min(end - at, count) - start))
            at += count
        return pa.concat_tables(found)

    @cached_property
    def _counts(self) -> list[int]:
        with self._open() as file:
            about = file.metadata
            return [about.row_group(i).num_rows for i in range(about.num_row_groups)]

    def _read_group(self, number: int) -> pa.Table:
        with self._open() as file:
            return file.read_row_group(number)

    def _open(self) -> pq.ParquetFile:
        assert not isinstance(self.manifest, pa.Table)
        return pq.ParquetFile(
            self.manifest.open() if isinstance(self.manifest, RemotePath) else self.manifest
        )
