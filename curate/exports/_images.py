"""The rows of a dataset with their images, some at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from curate.datasets import Dataset
from curate.errors import DataError
from curate.ranges import Reader

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1000
STAGING_FOLDERS = ("parts", "work")  # what a staging clears away when it is done
READ_AHEAD = 2  # lots that are read while one is written


def splits(table: pa.Table, dataset: Dataset) -> dict[str, pa.Table]:
    """Return the rows of each split in the manifest's order; rows without one belong to `train`.

    Raises:
        DataError: a split's name cannot be a file's.
    """
    import pyarrow.compute as pc

    told = pc.fill_null(table["split"], "train")
    names = sorted(set(told.to_pylist()))
    for name in names:
        if not name.isidentifier() or name in STAGING_FOLDERS:
            raise DataError(
                f"{dataset.path}: the split {name!r} cannot be a folder's name",
                hint="give it letters, digits and _ alone, and not parts or work",
            )
    return {name: table.filter(pc.equal(told, name)) for name in names}


def with_bytes(table: pa.Table, reader: Reader) -> Iterator[tuple[pa.Table, list[bytes]]]:
    """Yield a table's rows in order, a thousand at a time, each lot with the bytes of its images.

    Raises:
        DataError: a file is gone or has changed.
    """
    lots = [table.slice(at, ROWS_AT_ONCE) for at in range(0, table.num_rows, ROWS_AT_ONCE)]

    def read(lot: pa.Table) -> list[bytes]:
        places = (lot[name].to_pylist() for name in ("file", "offset", "size"))
        return [reader.read(*place) for place in zip(*places, strict=True)]

    with ThreadPoolExecutor(min(READ_AHEAD, os.cpu_count() or 1)) as pool:
        waiting = [pool.submit(read, lot) for lot in lots[:READ_AHEAD]]
        for number, lot in enumerate(lots):
            data = waiting.pop(0).result()
            if number + READ_AHEAD < len(lots):
                waiting.append(pool.submit(read, lots[number + READ_AHEAD]))
            yield lot, data
