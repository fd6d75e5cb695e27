"""The reader of tables, for sources and steps: CSV, TSV, JSON and JSON lines, plain or compressed, and Parquet.

Types are not guessed from the first rows: every row of a text file is read. A source counts the lines that are no
rows; a step refuses the first of them, by its number.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from curate.rows.readers import delimited, jsons
from curate.rows.readers.dialects import Dialect, dialect
from curate.rows.readers.encodings import as_utf8, encoding, ending, is_json
from curate.rows.readers.kinds import cast, kinds_of
from curate.rows.readers.repairs import write_sound_rows
from curate.rows.sql import copy_parquet, parquet


def make_view(
    con: Any, name: str, file: str, *, columns: Collection[str] | None, texts: Collection[str]
) -> None:
    """Create a view of a file that a step names; each column has the type of all its values.

    Args:
        con: a DuckDB connection that may read the file; a file that DuckDB cannot read directly becomes a table.
        name: of the view.
        columns: those whose type matters, the others of a CSV are texts; None for all.
        texts: columns that are texts whatever they look like.

    Raises:
        DataError: the file is no such table, or a line is no row.
        duckdb.Error: likewise.
    """
    path = Path(file)
    if ending(path) == "parquet":
        con.execute(f"CREATE TEMP VIEW {name} AS FROM {parquet(file)}")
    elif query := _as_it_stands(path, file, columns, texts):
        con.execute(f"CREATE TEMP VIEW {name} AS {query}")
    else:
        with TemporaryDirectory() as work:
            _import(con, name, _rewritten(path, Path(work), columns, texts), Path(work, "rows.parquet"))


def _as_it_stands(
    path: Path, file: str, columns: Collection[str] | None, texts: Collection[str]
) -> str | None:
    """Return SQL that reads a text file; None if DuckDB cannot read it directly, although all lines are rows.

    Raises:
        DataError: a line is no row.
    """
    if is_json(path):
        return _from_json(path, texts) if encoding(path) == "utf-8" else None
    if not delimited.is_plain(path, dialect(path)):
        return None
    try:
        return _from_csv(path, dialect(path), columns, texts)
    except duckdb.Error:
        delimited.refuse_faults(path, dialect(path), file)
        return None


def _rewritten(path: Path, work: Path, columns: Collection[str] | None, texts: Collection[str]) -> str:
    """Copy a text file into a form that DuckDB reads; return the SQL."""
    copy = work / f"rows.{ending(path)}"
    if is_json(path):
        with as_utf8(path) as readable:
            shutil.copy(readable, copy)
        return _from_json(copy, texts)
    delimited.refuse_faults(path, dialect(path), str(path))
    write_sound_rows(path, dialect(path), copy)
    return _from_csv(copy, replace(dialect(path), headless=True, blank=0), columns, texts)


def _import(con: Any, name: str, query: str, copy: Path) -> None:
    """Store the result of a query as a table of a connection that may not read the query's files."""
    import pyarrow.parquet as pq

    with duckdb.connect() as other:
        copy_parquet(other, query, copy)
    con.register(f"{name}_rows", pq.read_table(copy))
    con.execute(f"CREATE TEMP TABLE {name} AS FROM {name}_rows")
    con.unregister(f"{name}_rows")


def _from_json(path: Path, texts: Collection[str]) -> str:
    types = jsons.json_types(path)
    return f"FROM {jsons.relation(path, types | {c: 'VARCHAR' for c in texts if c in types})}"


def _from_csv(path: Path, found: Dialect, columns: Collection[str] | None, texts: Collection[str]) -> str:
    status = path.stat()
    typed = tuple(c for c in found.header if c not in texts and (columns is None or c in columns))
    kinds = _kinds(path, found, status.st_mtime_ns, status.st_size, typed)
    selected = ", ".join(cast(c, kinds.get(c, "VARCHAR")) for c in found.header)
    return f"SELECT {selected} FROM {delimited.relation(path, found, strict=True)}"


@lru_cache(maxsize=64)
def _kinds(path: Path, found: Dialect, _time: int, _size: int, columns: tuple[str, ...]) -> dict[str, str]:
    with duckdb.connect() as con:
        return kinds_of(con, delimited.relation(path, found, strict=True), columns)
