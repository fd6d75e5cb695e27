"""Values, names and files as SQL that DuckDB reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from curate.io.files import unfinished


def quoted(column: str) -> str:
    """Return a column's name as a SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def text(value: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def plain(path: object) -> str:
    """Return a path in which `*`, `?` and `[` stand for themselves where DuckDB reads it, as a pattern it does not."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


def parquet(*paths: object, literal: bool = True, **options: bool) -> str:
    """Return SQL that reads Parquet files, and their columns alone: a folder called `caption=x` makes none.

    Args:
        literal: whether `*` and the like stand for themselves in the paths.
        options: of DuckDB's `read_parquet`, such as `file_row_number`.
    """
    files = ", ".join(text(plain(p) if literal else str(p)) for p in paths)
    told = "".join(f", {name} = {str(value).lower()}" for name, value in options.items())
    return f"read_parquet([{files}], hive_partitioning = false{told})"


def copy_parquet(con: Any, query: str, path: Path) -> None:
    """Write what a query of DuckDB gives to a Parquet file, wholly or not at all."""
    with unfinished(path) as beside:
        con.execute(f"COPY ({query}) TO {text(str(beside))} (FORMAT parquet, COMPRESSION zstd)")
