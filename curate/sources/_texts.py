"""Tables that are text (CSV, TSV, JSON), and Parquet whose texts are damaged, made into Parquet that can be trusted."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import duckdb

from curate.errors import DataError
from curate.layouts import Layout
from curate.manifests import plain, text
from curate.rows import columns_of

SAMPLE_LINES = 2_000  # looked at to learn how a text file is written
MAX_LINE_BYTES = 32 << 20
MAX_OBJECT_BYTES = (16 << 20, 4 << 30)  # of one JSON value: at least and at most what DuckDB makes room for
NOT_UTF8, NO_ROW = "not UTF-8", "not a row of the table"


def is_json(path: Path) -> bool:
    """Whether a file is JSON or JSON lines by its ending."""
    return _ending(path) in ("json", "jsonl", "ndjson")


def relation(path: Path, layout: Layout | None, *, planning: bool = False) -> str:
    """Return SQL that reads a text file as it is written, every column of CSV and TSV as text.

    Args:
        planning: to learn the columns from the first lines, and pass over what is damaged.

    Raises:
        DataError: the file is empty.
    """
    if not is_json(path):
        return _csv(path, layout)
    raw = _json(path, planning)
    if layout is None or not layout.nested:
        return raw
    with duckdb.connect() as con:
        pairs = layout.unnesting(columns_of(con, f"(SELECT * FROM {_json(path, True)})"), raw)
    return f"({pairs})" if pairs else raw


def as_parquet(path: Path, layout: Layout, out: Path, file: str) -> tuple[Path, dict[str, int]]:
    """Write a text file as Parquet; return it, and how many of its lines became no row, by reason.

    Args:
        out: the Parquet file to write.
        file: what the recipe calls the file, for messages.

    Raises:
        DataError: DuckDB cannot make a table of it.
    """
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    sound = beside.with_suffix(".jsonl")
    lost: dict[str, int] = {}
    try:
        try:
            lost = _copied(path, layout, beside)
        except duckdb.Error as error:
            if not is_json(path) or _is_document(path):
                raise DataError(f"{file}: cannot be read as a table ({_first(error)})", hint=_HINT) from None
            lost = _sound_lines(path, sound)
            _copied(sound, layout, beside)
        os.replace(beside, out)
    except duckdb.Error as error:
        raise DataError(f"{file}: cannot be read as a table ({_first(error)})", hint=_HINT) from None
    finally:
        beside.unlink(missing_ok=True)
        sound.unlink(missing_ok=True)
    return out, lost


_HINT = "is it whole, and is the layout (`as:`) the right one?"


def _copied(path: Path, layout: Layout, out: Path) -> dict[str, int]:
    with duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(str(out.parent))}")
        con.execute(
            f"COPY (FROM {relation(path, layout)}) TO {text(str(out))} (FORMAT parquet, COMPRESSION zstd)"
        )
        if is_json(path):
            return {}
        kinds = f"CASE error_type WHEN 'INVALID ENCODING' THEN {text(NOT_UTF8)} ELSE {text(NO_ROW)} END"
        return dict(
            con.execute(
                f"SELECT {kinds}, count(DISTINCT line) FROM reject_errors GROUP BY 1 ORDER BY 1"
            ).fetchall()
        )


def _json(path: Path, planning: bool) -> str:
    size = path.stat().st_size * (1 if path.suffix.lower() == ".json" else 12)
    most = min(max(MAX_OBJECT_BYTES[0], 2 * size), MAX_OBJECT_BYTES[1])
    lines = not _is_document(path)
    told = [f"format = '{'newline_delimited' if lines else 'auto'}'", f"maximum_object_size = {most}"]
    told.append("sample_size = 20480" if planning else "sample_size = -1")
    if planning and lines:
        told.append("ignore_errors = true")
    return f"read_json({text(plain(path))}, hive_partitioning = false, {', '.join(told)})"


def _is_document(path: Path) -> bool:
    """Whether a file is one JSON value over several lines, or a list, and not one object a line."""
    with opened(path) as stream:
        first = next((line for line in stream if line.strip()), b"")
    try:
        return not (isinstance(json.loads(first), dict) and _ending(path) != "json") and not _has_second(path)
    except ValueError:
        return _ending(path) == "json"


def _has_second(path: Path) -> bool:
    """Whether a second object stands on the second line: JSON lines that are called `.json`."""
    with opened(path) as stream:
        lines = list(itertools.islice((line for line in stream if line.strip()), 2))
    try:
        return len(lines) == 2 and all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


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
        for row in con.execute(f"FROM {relation(path, layout, planning=True)} LIMIT {rows}").fetchall():
            yield ["" if cell is None else str(cell) for cell in row]


def headless(path: Path) -> bool:
    """Whether a CSV or TSV file has no header line."""
    return not is_json(path) and _dialect(path, path.stat().st_mtime_ns).headless


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading, unpacked where its ending says that it is packed."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return open(path, "rb")


def _ending(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]


def _first(error: Exception) -> str:
    return str(error).split("\n")[0]


def cleaned(path: Path, out: Path, file: str) -> tuple[Path, int]:
    """Return a Parquet file whose texts are all UTF-8, and how many rows had one that was not and are left out.

    The file itself, where all are.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(path)
        if all(_is_sound(batch) for batch in parquet.iter_batches()):
            return path, 0
        beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        broken = 0
        with pq.ParquetWriter(beside, parquet.schema_arrow, compression="zstd") as writer:
            for batch in parquet.iter_batches():
                sound = batch if _is_sound(batch) else batch.filter(pa.array(_sound_rows(batch)))
                broken += batch.num_rows - sound.num_rows
                writer.write_batch(sound)
        os.replace(beside, out)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: damaged Parquet ({error})", hint="fetch it again") from None
    return out, broken


def _is_sound(batch: Any) -> bool:
    import pyarrow as pa

    try:
        for column in _texts(batch):
            column.cast(pa.binary()).cast(pa.string())  # this way round it looks
    except pa.ArrowInvalid:
        return False
    return True


def _sound_rows(batch: Any) -> list[bool]:
    import pyarrow as pa

    sound = [True] * batch.num_rows
    for column in _texts(batch):
        for i, value in enumerate(column.cast(pa.binary()).to_pylist()):
            try:
                value is None or value.decode()
            except UnicodeDecodeError:
                sound[i] = False
    return sound


def _texts(batch: Any) -> list[Any]:
    import pyarrow as pa

    return [c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c
            for c in batch.columns if pa.types.is_string(c.type) or pa.types.is_large_string(c.type)]  # fmt: skip
