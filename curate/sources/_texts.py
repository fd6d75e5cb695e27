"""Tables that are text (CSV, TSV, JSON) made into Parquet, and how they are written."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import duckdb

from curate.errors import DataError, printable
from curate.files import unfinished
from curate.layouts import Layout
from curate.manifests import plain, quoted, text

SAMPLE_LINES = 2_000  # looked at to learn how a text file is written
HEAD_BYTES = 1 << 20  # looked at to tell JSON lines from a document
MAX_LINE_BYTES = 32 << 20
MAX_OBJECT_BYTES = (16 << 20, 4 << 30)  # of one JSON value: at least and at most what DuckDB makes room for
NOT_UTF8, NO_ROW = "not UTF-8", "not a row of the table"


def is_json(path: Path) -> bool:
    """Whether a file is JSON or JSON lines by its ending."""
    return _ending(path) in ("json", "jsonl", "ndjson")


def relation(path: Path, layout: Layout | None, planned: Mapping[str, str] | None = None) -> str:
    """Return SQL that reads a text file as it is written, every column of CSV and TSV as text.

    Args:
        planned: column → type as the plan knows them, of JSON, of which all is looked at then; None for what its
            first lines tell.

    Raises:
        DataError: the file is empty.
    """
    if not is_json(path):
        return _csv(path, layout)
    types = json_types(path) if planned is None else _looked_through(path, layout, planned)
    columns = ", ".join(f"{text(name)}: {text(kind)}" for name, kind in types.items())
    raw = _json(path, [f"columns = {{{columns}}}"])
    pairs = layout.unnesting(types, raw) if layout else None
    return f"({pairs})" if pairs else raw


def json_types(path: Path) -> dict[str, str]:
    """Return the columns of a JSON file and their types, by its first rows; dates, times and UUIDs are text."""
    status = path.stat()
    return dict(_sampled(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _sampled(path: Path, _time: int, _size: int) -> dict[str, str]:
    lines = not _is_document(path)
    return _types(_json(path, ["sample_size = 20480", *(["ignore_errors = true"] if lines else [])]))


def _looked_through(path: Path, layout: Layout | None, planned: Mapping[str, str]) -> dict[str, str]:
    """Return the columns of a JSON file and types that hold all of its values; as planned where those do."""
    found = _types(_json(path, ["sample_size = -1"]))
    if layout and layout.unnesting(found, ""):
        return found
    firm = {
        c: kind
        for c, kind in planned.items()
        if kind not in ("JSON", "BOOLEAN") and not NUMBER.fullmatch(kind)
    }
    return {c: firm.get(c, kind) for c, kind in found.items()}


NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*")


def _types(read: str) -> dict[str, str]:
    with duckdb.connect() as con:
        found = con.sql(f"SELECT * FROM {read}")
        return {name: _as_text(kind) for name, kind in zip(found.columns, found.types, strict=True)}


def _as_text(kind: Any) -> str:
    """Return a DuckDB type without those that are guessed from how a text looks: a UUID would lose its case."""
    if kind.id == "list":
        return f"{_as_text(kind.children[0][1])}[]"
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {_as_text(inner)}' for name, inner in kind.children)})"
    if kind.id == "map":
        return f"MAP({', '.join(_as_text(inner) for _, inner in kind.children)})"
    return "VARCHAR" if kind.id.startswith(("uuid", "date", "time", "interval")) else str(kind)


def as_parquet(
    path: Path, layout: Layout, out: Path, file: str, planned: Mapping[str, str]
) -> tuple[Path, dict[str, int]]:
    """Write a text file as Parquet; return it, and how many of its lines became no row, by reason.

    Args:
        out: the Parquet file to write.
        file: what the recipe calls the file, for messages.
        planned: of JSON, the columns and types of the table's first file.

    Raises:
        DataError: DuckDB cannot make a table of it.
    """
    try:
        with unfinished(out) as beside:
            try:
                lost = _copied(path, layout, beside, planned)
            except duckdb.Error:
                if not is_json(path) or _is_document(path):
                    raise
                with TemporaryDirectory(dir=out.parent) as work:
                    sound = Path(work, "sound.jsonl")
                    lost = _sound_lines(path, sound)
                    _copied(sound, layout, beside, planned)
    except duckdb.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({_first(error)})", hint=_HINT) from None
    return out, lost


_HINT = "is it whole, and is the layout (`as:`) the right one?"


def _copied(path: Path, layout: Layout, out: Path, planned: Mapping[str, str]) -> dict[str, int]:
    with duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(str(out.parent))}")
        con.execute(
            f"COPY (FROM {relation(path, layout, planned)}) TO {text(str(out))} (FORMAT parquet, COMPRESSION zstd)"
        )
        if is_json(path):
            return {}
        kinds = f"CASE error_type WHEN 'INVALID ENCODING' THEN {text(NOT_UTF8)} ELSE {text(NO_ROW)} END"
        return dict(
            con.execute(
                f"SELECT {kinds}, count(DISTINCT line) FROM reject_errors GROUP BY 1 ORDER BY 1"
            ).fetchall()
        )


def _json(path: Path, options: Sequence[str]) -> str:
    size = path.stat().st_size * (1 if path.suffix.lower() == ".json" else 12)
    most = min(max(MAX_OBJECT_BYTES[0], 2 * size), MAX_OBJECT_BYTES[1])
    form = "auto" if _is_document(path) else "newline_delimited"
    told = [f"format = '{form}'", f"maximum_object_size = {most}", *options]
    return f"read_json({text(plain(path))}, hive_partitioning = false, {', '.join(told)})"


def _is_document(path: Path) -> bool:
    """Whether a file is a list, or one JSON value over several lines, and not one object a line."""
    with opened(path) as stream:
        head = stream.read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    first, _, rest = head.partition(b"\n")
    lines = first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")
    return head.startswith(b"[") or (_ending(path) == "json" and not lines)


def _sound_lines(path: Path, out: Path) -> dict[str, int]:
    """Copy the lines that are JSON in UTF-8; count the others."""
    lost = {NOT_UTF8: 0, NO_ROW: 0}
    with opened(path) as stream, open(out, "wb") as kept:
        for line in stream:
            try:
                line.decode()
                json.loads(line)
            except UnicodeDecodeError:
                lost[NOT_UTF8] += 1
            except ValueError:
                lost[NO_ROW] += bool(line.strip())
            else:
                kept.write(line)
    return {reason: count for reason, count in lost.items() if count}


def _csv(path: Path, layout: Layout | None) -> str:
    dialect = _dialect(path, path.stat().st_mtime_ns)
    delimiter = (layout and layout.delimiter) or dialect.delimiter
    quote = dialect.quote if layout is None or layout.quote is None else layout.quote
    headless = layout is not None and layout.headers and dialect.headless
    names = layout.header(dialect.width, where=str(path)) if layout and headless else ()
    told = [
        f"delim = {text(delimiter)}",
        f"quote = {text(quote)}",
        f"escape = {text(quote)}",
        f"header = {'false' if dialect.headless else 'true'}",
        f"max_line_size = {MAX_LINE_BYTES}",
        "all_varchar = true, auto_detect = true, ignore_errors = true, store_rejects = true",
    ]
    if names:
        told.append("names = [" + ", ".join(map(text, names)) + "]")
    return f"read_csv({text(plain(path))}, hive_partitioning = false, {', '.join(told)})"


class _Dialect:
    """How a text file is written, from its first lines."""

    def __init__(self, lines: list[str], tabs: bool) -> None:
        head = "".join(lines)
        self.delimiter = "\t" if tabs or lines[0].count("\t") > lines[0].count(",") else ","
        self.quote = '"'
        if self.delimiter == "\t":  # tabs need no quotes, and most sets have none
            cells = [cell for line in lines for cell in line.rstrip("\r\n").split("\t") if '"' in cell]
            begun = [c for c in cells if c.startswith('"')]
            self.quote = '"' if begun and all(len(c) > 1 and c.endswith('"') for c in begun) else ""
        quoting: Any = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        first = next(csv.reader(io.StringIO(head), delimiter=self.delimiter, quoting=quoting), [])
        # No column is called by a URL.
        self.width = len(first)
        self.headless = any(cell.lower().startswith(("http://", "https://")) for cell in first)


@lru_cache(maxsize=64)
def _dialect(path: Path, _: int) -> _Dialect:
    with opened(path) as stream:
        lines = [line.decode("utf-8", "replace") for line in itertools.islice(stream, SAMPLE_LINES)]
    if not any(line.strip() for line in lines):
        raise DataError(f"{path}: is empty", hint="fetch it again")
    csv.field_size_limit(MAX_LINE_BYTES)
    return _Dialect(lines, _ending(path) == "tsv")


def sample(path: Path, layout: Layout | None, rows: int = 200) -> Iterator[list[str]]:
    """Yield the first rows of a CSV or TSV file, as texts."""
    with duckdb.connect() as con:
        for row in con.execute(f"FROM {relation(path, layout)} LIMIT {rows}").fetchall():
            yield ["" if cell is None else str(cell) for cell in row]


def headless(path: Path) -> bool:
    """Whether a CSV or TSV file has no header line."""
    return not is_json(path) and _dialect(path, path.stat().st_mtime_ns).headless


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacked where its ending says that it is packed.

    Raises:
        DataError: it cannot be unpacked.
    """
    try:
        with _stream(path) as stream:
            yield stream
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is packed
            raise
        raise DataError(
            f"{path}: cannot be unpacked ({_first(error)})", hint="is it whole? fetch it again"
        ) from None


def _stream(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return open(path, "rb")


def _ending(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]


def _first(error: Exception) -> str:
    return printable(str(error).split("\n")[0])
