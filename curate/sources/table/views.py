"""Views of a table's files: SQL for the usable rows of files whose columns differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from curate.rows.readers.jsons import NUMBER
from curate.rows.relation import columns_of
from curate.rows.sql import parquet, quoted
from curate.sources.table.files import TableFile
from curate.sources.table.layouts.layout import TableLayout
from curate.sources.table.layouts.layout import kinds as kinds_of
from curate.sources.table.usable import NULLS


@dataclass(frozen=True)
class FileView:
    """A file through its layout: column of a row → SQL over the file's columns, and its type."""

    file: TableFile
    chosen: Mapping[str, str]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, layout: TableLayout, file: TableFile) -> FileView:
        chosen = layout.select(file.columns, where=file.file)
        return cls(file, chosen, kinds_of(chosen, file.columns))


def selects(views: list[FileView], types: Mapping[str, str]) -> Iterator[str]:
    """Yield SQL for the usable rows of files with the same columns: one read for clean files, one for each other."""
    columns = ", ".join(
        f"{_cast(views[0].chosen.get(c), views[0].kinds.get(c, NULLS), kind)} AS {quoted(c)}"
        for c, kind in types.items()
    )
    if whole := [v.file.parquet for v in views if v.file.left_out is None]:
        yield f"SELECT {columns} FROM {_read(whole)}"
    for file in (v.file for v in views):
        if file.left_out is not None:
            yield (
                f"SELECT {columns} FROM {_read([file.parquet], numbered=True)} "
                f"WHERE file_row_number NOT IN (SELECT number FROM {_read([file.left_out])})"
            )


def _cast(sql: str | None, kind: str, wanted: str) -> str:
    if sql is None or kind == NULLS:
        return f"NULL::{wanted}"
    if kind == wanted:
        return sql
    if wanted == "JSON":
        return f"to_json({sql})"
    if (kind, wanted) == ("FLOAT", "DOUBLE"):  # by its digits, so that 0.29 is not below 0.29
        sql = f"{sql}::VARCHAR"
    return f"TRY_CAST({sql} AS {wanted})"


def common_type(kind: str, other: str) -> str | None:
    """Return the DuckDB type that holds the values of two types; None if there is none."""
    if kind == other or "JSON" in (kind, other):
        return kind if kind in (other, "JSON") else None
    if NUMBER.fullmatch(kind) and NUMBER.fullmatch(other):
        with duckdb.connect() as con:
            return columns_of(con, f"(SELECT NULL::{kind} AS a UNION ALL SELECT NULL::{other})")["a"]
    return kind if kind == "VARCHAR" and re.fullmatch(r"[A-Z_ 0-9]+", other) and other != "BLOB" else None


def _read(paths: list[Path], *, numbered: bool = False) -> str:
    return parquet(*paths, union_by_name=True, file_row_number=numbered)
