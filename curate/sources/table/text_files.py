"""Tables of URLs that are text (CSV, TSV, JSON) made into Parquet, as their layouts have them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from curate.errors import DataError, first_line
from curate.io.files import unfinished
from curate.rows.readers import delimited, jsons
from curate.rows.readers.dialects import Dialect, cells, dialect
from curate.rows.readers.encodings import as_utf8, is_json, opened_text
from curate.rows.readers.repairs import rows_of
from curate.rows.relation import columns_of
from curate.rows.sql import text
from curate.sources.table.layouts.layout import TableLayout


def text_columns(path: Path, layout: TableLayout | None) -> dict[str, str]:
    """Return the columns of a text file and their DuckDB types, of CSV and TSV all text.

    Raises:
        DataError: the file is empty, or no table.
    """
    if not is_json(path):
        found = _dialect(path, layout)
        return dict.fromkeys(_names(path, layout, found) or found.header, "VARCHAR")
    types = jsons.json_types(path)
    if not (layout and layout.unnesting(types, "")):
        return types
    with as_utf8(path) as readable, duckdb.connect() as con:
        return columns_of(con, f"(SELECT * FROM {_json(readable, layout, {})})")


def _json(path: Path, layout: TableLayout | None, planned: Mapping[str, str]) -> str:
    """Return SQL that reads a JSON file in UTF-8 as its layout has it."""
    types = jsons.json_types(path)
    if layout and (pairs := layout.unnesting(types, jsons.relation(path, types))):
        return f"({pairs})"
    firm = {c: kind for c, kind in planned.items() if c in types and jsons.holds(kind, types[c])}
    return jsons.relation(path, types | firm)


def as_parquet(
    path: Path, layout: TableLayout, out: Path, file: str, planned: Mapping[str, str]
) -> tuple[Path, dict[str, int]]:
    """Write a text file as Parquet; return it, and how many of its lines became no row, by reason.

    Args:
        out: the Parquet file to write.
        file: what the recipe calls the file, for messages.
        planned: of JSON, columns of the table's first file and their types.

    Raises:
        DataError: DuckDB cannot make a table of it.
    """
    try:
        with unfinished(out) as beside:
            if is_json(path):
                return out, _json_as_parquet(path, layout, beside, planned)
            found = _dialect(path, layout)
            return out, delimited.write_parquet(path, found, beside, names=_names(path, layout, found))
    except duckdb.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({first_line(error)})", hint=_HINT) from None


_HINT = "is the file complete, and is the layout (`as:`) the right one?"


def _json_as_parquet(
    path: Path, layout: TableLayout, out: Path, planned: Mapping[str, str]
) -> dict[str, int]:
    with as_utf8(path) as readable:
        try:
            return _copied(readable, layout, out, planned)
        except duckdb.Error:
            if jsons.is_document(readable):
                raise
            with TemporaryDirectory(dir=out.parent) as work:
                sound = Path(work, "sound.jsonl")
                lost = jsons.write_sound_lines(readable, sound)
                _copied(sound, layout, out, planned)
                return lost


def _copied(path: Path, layout: TableLayout, out: Path, planned: Mapping[str, str]) -> dict[str, int]:
    with duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(str(out.parent))}")
        con.execute(
            f"COPY (FROM {_json(path, layout, planned)}) TO {text(str(out))} (FORMAT parquet, COMPRESSION zstd)"
        )
    return {}


def _dialect(path: Path, layout: TableLayout | None) -> Dialect:
    return dialect(
        path, delimiter=layout.delimiter if layout else None, quote=layout.quote if layout else None
    )


def _names(path: Path, layout: TableLayout | None, found: Dialect) -> tuple[str, ...]:
    """Return the names of the columns of a file without a header line, where the layout has them."""
    if layout and layout.headers and found.headless:
        return layout.header(found.width, where=str(path))
    return ()


def sample(path: Path, rows: int = 200) -> Iterator[list[str]]:
    """Yield the first rows of a CSV or TSV file, as texts."""
    found = dialect(path)
    with opened_text(path) as lines:
        sound = (row for _, row, reason in rows_of(lines, found) if reason is None)
        for row in itertools.islice(sound, rows):
            yield next(cells([row], found.delimiter, found.quote))


def headless(path: Path) -> bool:
    """Whether a CSV or TSV file has no header line."""
    return not is_json(path) and dialect(path).headless
