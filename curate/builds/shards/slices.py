"""Which rows of a manifest a shard has, and how they are read without the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.io.paths import AnyPath, RemotePath

ROW_GROUPS = 4  # kept: neighbouring shards want the same (DuckDB writes 122,880 rows into one)


def boundaries(sizes: np.ndarray, *, samples_per_shard: int, bytes_per_shard: int | None = None) -> list[int]:
    """Return the first row of each shard, and one past the last row of all.

    A shard is full when it has so many samples, or when the next image would bring it over so many bytes of
    images; an image larger than that has a shard of its own.

    Args:
        sizes: bytes of each image, in order.
    """
    count = len(sizes)
    if bytes_per_shard is None:
        return [*range(0, count, samples_per_shard), count] if count else [0]
    ends = np.cumsum(sizes)
    bounds = [0]
    while (first := bounds[-1]) < count:
        before = int(ends[first - 1]) if first else 0
        full = int(np.searchsorted(ends, before + bytes_per_shard, side="right"))
        bounds.append(min(first + samples_per_shard, max(full, first + 1), count))
    return bounds


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
        slices, at = [], 0
        for number, count in enumerate(self._counts):
            if at < end and at + count > first:
                start = max(first - at, 0)
                slices.append(self._group(number).slice(start, min(end - at, count) - start))
            at += count
        return pa.concat_tables(slices)

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
