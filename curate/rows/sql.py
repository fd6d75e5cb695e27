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
    """Return a path that DuckDB does not take for a pattern: `*`, `?` and `[` are escaped."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


def parquet(*paths: object, literal: bool = True, **options: bool) -> str:
    """Return SQL that reads the columns of Parquet files; a folder named `caption=x` adds none.

    Args:
        literal: whether the paths are no patterns.
        options: of DuckDB's `read_parquet`, such as `file_row_number`.
    """
    files = ", ".join(text(plain(p) if literal else str(p)) for p in paths)
    settings = "".join(f", {name} = {str(value).lower()}" for name, value in options.items())
    return f"read_parquet([{files}], hive_partitioning = false{settings})"


def copy_parquet(con: Any, query: str, path: Path) -> None:
    """Write the result of a DuckDB query to a Parquet file, whole or not at all."""
    with unfinished(path) as beside:
        con.execute(f"COPY ({query}) TO {text(str(beside))} (FORMAT parquet, COMPRESSION zstd)")
