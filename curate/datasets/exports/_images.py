"""The rows of a dataset with their images, some at a time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from curate.datasets.contracts import refuse_no_image
from curate.datasets.dataset import Dataset
from curate.errors import DataError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import cores, in_order

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1000
STAGING_FOLDERS = ("parts", "work")  # what a staging clears away when it is done
PLACE = ("file", "offset", "size")
DEVICE = re.compile("con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3]", re.IGNORECASE).fullmatch
READ_AHEAD = 2  # lots that are read while one is written


def folded(name: str) -> str:
    """Return what a name is to a file system that knows no case, nor how an accent is written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def reserved(name: str) -> bool:
    """Whether Windows takes a file's name for a device, whatever its extension."""
    return DEVICE(name.partition(".")[0].rstrip(" ")) is not None


def splits(table: pa.Table, dataset: Dataset) -> dict[str, pa.Table]:
    """Return the rows of each split in the manifest's order; rows without one belong to `train`.

    Raises:
        DataError: a split's name cannot be a file's, or two differ in case alone.
    """
    import pyarrow.compute as pc

    splits = pc.fill_null(table["split"], "train")
    names = sorted(pc.unique(splits).to_pylist())
    for name in names:
        if not name.isidentifier() or name in STAGING_FOLDERS or reserved(name):
            raise DataError(
                f"{dataset.path}: the split {name!r} cannot be a folder's name",
                hint="give it letters, digits and _ alone, and not parts or work",
            )
    if alike := len(names) - len({folded(name) for name in names}):
        raise DataError(
            f"{dataset.path}: {alike} of the splits {', '.join(names)} differ in case alone",
            hint="some file systems would merge them: give them other names",
        )
    return {name: table.filter(pc.equal(splits, name)) for name in names}


def with_bytes(table: pa.Table, reader: ByteRangeReader) -> Iterator[tuple[pa.Table, list[bytes]]]:
    """Yield a table's rows in order, a thousand at a time, each lot with the bytes of its images.

    Raises:
        DataError: a file is gone or has changed, or is no image of its kind.
    """
    lots = [table.slice(at, ROWS_AT_ONCE) for at in range(0, table.num_rows, ROWS_AT_ONCE)]

    def read(lot: pa.Table) -> list[bytes]:
        found = []
        for ext, file, offset, size in zip(*(lot[c].to_pylist() for c in ("ext", *PLACE)), strict=True):
            found.append(reader.read(file, offset, size))
            refuse_no_image(found[-1], ext, file)
        return found

    tasks = (partial(read, lot) for lot in lots)
    yield from zip(lots, in_order(tasks, min(READ_AHEAD, cores()), READ_AHEAD + 1), strict=True)
