"""Parquet files whose texts are not all UTF-8, made into ones that can be read."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

from curate.errors import DataError, printable
from curate.io.files import unfinished


def cleaned(path: Path, out: Path, file: str) -> tuple[Path, int]:
    """Return a Parquet file whose texts are all UTF-8, and how many rows had one that was not and are left out.

    The file itself, where all are.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = _undictioned(path)
        if all(all(map(_is_sound, batch.columns)) for batch in parquet.iter_batches()):
            return path, 0
        broken = 0
        with (
            unfinished(out) as beside,
            pq.ParquetWriter(beside, parquet.schema_arrow, compression="zstd") as writer,
        ):
            for batch in parquet.iter_batches():
                bad = [column for column in batch.columns if not _is_sound(column)]
                sound = batch.filter(pa.array(_can_be_read(bad, batch.num_rows))) if bad else batch
                broken += batch.num_rows - sound.num_rows
                writer.write_batch(sound)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: damaged Parquet ({printable(str(error))})", hint="fetch it again") from None
    return out, broken


def _undictioned(path: Path) -> Any:
    """Open a Parquet file, its dictionaries as texts: Arrow makes none of what is no UTF-8.

    That a column is to be a dictionary stands in a schema of Arrow's own beside Parquet's; it is hidden from it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet, name = pq.ParquetFile(path), b"ARROW:schema"
    if "dictionary<" not in str(parquet.schema_arrow):
        return parquet
    with open(path, "rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    place = content.find(name, len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
    content[place : place + len(name)] = name.lower()
    return pq.ParquetFile(pa.BufferReader(content))


def _is_sound(column: Any) -> bool:
    """Whether all texts of a column are UTF-8, however deep they stand in it."""
    import pyarrow as pa

    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _is_sound(column.storage)
    if pa.types.is_map(kind):
        return _is_sound(column.keys) and _is_sound(column.items)
    if pa.types.is_nested(kind):
        parts = column.flatten()
        return all(map(_is_sound, parts if pa.types.is_struct(kind) else [parts]))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return True
    try:
        column.cast(pa.large_binary()).cast(pa.large_string())  # this way round it looks
    except pa.ArrowInvalid:
        return False
    return True


def _can_be_read(columns: list[Any], rows: int) -> list[bool]:
    """Tell of each row whether all its texts are UTF-8."""
    sound = [True] * rows
    for column in columns:
        for i, value in enumerate(column):
            try:
                value.as_py()
            except UnicodeDecodeError:
                sound[i] = False
    return sound
