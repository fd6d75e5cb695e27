"""CSV and TSV files as SQL: every column is text; lines that are no rows are counted or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from curate.errors import DataError, printable
from curate.rows.readers.dialects import MAX_LINE_BYTES, Dialect
from curate.rows.readers.encodings import encoding
from curate.rows.readers.repairs import NO_ROW, NOT_UTF8, first_fault, write_sound_rows
from curate.rows.sql import plain, text

# Errors of DuckDB by which more than one row may be lost: a row over several lines may have swallowed others.
_MORE_THAN_A_ROW = (
    "error_type IN ('UNQUOTED VALUE', 'LINE SIZE OVER MAXIMUM') "
    r"OR contains(trim(csv_line, E'\r\n'), E'\n')"
)
_SHOWN = 60  # characters of a line in a message


def relation(path: Path, dialect: Dialect, *, names: Sequence[str] = (), strict: bool = False) -> str:
    """Return SQL that reads a CSV or TSV file, for which `is_plain` holds, with all columns as texts.

    Args:
        names: of the columns; those of the dialect by default.
        strict: raise an error for a line that is no row; otherwise it goes to DuckDB's `reject_errors`.
    """
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names or dialect.header)
    settings = [
        f"delim = {text(dialect.delimiter)}",
        f"quote = {text(dialect.quote)}",
        f"escape = {text(dialect.quote)}",
        f"header = {str(not dialect.headless).lower()}",
        f"max_line_size = {MAX_LINE_BYTES}",
        f"auto_detect = false, columns = {{{columns}}}",
    ]
    if not strict:
        settings.append("ignore_errors = true, store_rejects = true")
    return f"read_csv({text(plain(path))}, hive_partitioning = false, {', '.join(settings)})"


def is_plain(path: Path, dialect: Dialect) -> bool:
    """Tell whether a file is UTF-8 and begins with its first row: DuckDB's versions differ on empty lines before."""
    return encoding(path) == "utf-8" and not dialect.blank


def write_parquet(path: Path, dialect: Dialect, out: Path, *, names: Sequence[str] = ()) -> dict[str, int]:
    """Write a CSV or TSV file as Parquet; return reason → number of lines that became no row.

    Raises:
        duckdb.Error: DuckDB cannot make a table of it.
    """
    if is_plain(path, dialect):
        try:
            lost, swallowed = _copied(relation(path, dialect, names=names), out)
        except duckdb.Error:
            swallowed = True
        if not swallowed:
            return lost
    with TemporaryDirectory(dir=out.parent) as work:
        sound = Path(work, "sound.csv")
        lost = write_sound_rows(path, dialect, sound)
        bare = Dialect(dialect.delimiter, dialect.quote, dialect.header, headless=True)
        more, _ = _copied(relation(sound, bare, names=names), out)
    both = {reason: lost.get(reason, 0) + more.get(reason, 0) for reason in sorted({*lost, *more})}
    return both


def _copied(read: str, out: Path) -> tuple[dict[str, int], bool]:
    """Write a relation as Parquet; return reason → lost lines, and whether others may be lost with them."""
    with duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(str(out.parent))}")
        con.execute(f"COPY (FROM {read}) TO {text(str(out))} (FORMAT parquet, COMPRESSION zstd)")
        return _rejected(con)


def _rejected(con: Any) -> tuple[dict[str, int], bool]:
    kinds = f"CASE error_type WHEN 'INVALID ENCODING' THEN {text(NOT_UTF8)} ELSE {text(NO_ROW)} END"
    errors = con.execute(
        f"SELECT {kinds}, count(DISTINCT line), bool_or({_MORE_THAN_A_ROW}) FROM reject_errors GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return {reason: count for reason, count, _ in errors}, any(more for *_, more in errors)


def refuse_faults(path: Path, dialect: Dialect, where: str) -> None:
    """Refuse a file with a line that is no row.

    Args:
        where: the file, for messages.

    Raises:
        DataError: with the number of the first such line.
    """
    fault = first_fault(path, dialect)
    if fault is None:
        return
    number, row, reason = fault
    what = f"{reason} of {dialect.width} columns" if reason == NO_ROW else reason
    excerpt = printable(row[:_SHOWN] + ("…" if len(row) > _SHOWN else ""))
    raise DataError(
        f"{where}, line {number}: {what}: {excerpt}",
        hint="texts are UTF-8, and one with the delimiter, a quotation mark or a line break stands in quotes, "
        'a quotation mark in it twice (`""`)',
    )
