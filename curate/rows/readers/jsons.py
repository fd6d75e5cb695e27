"""JSON and JSON lines as SQL: columns are the keys of all rows, and types hold all values."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from curate.errors import DataError, printable
from curate.io.files import cache_folder, write_atomic
from curate.rows.manifest import digest
from curate.rows.readers.encodings import as_utf8, ending, opened
from curate.rows.readers.repairs import NO_ROW, NOT_UTF8
from curate.rows.sql import plain, quoted, text

VERSION = 1  # of the types that are kept of a file
WORTH_KEEPING = 16 << 20  # bytes of a file from which its types are kept in the cache
HEAD_BYTES = 1 << 20  # looked at to tell JSON lines from a document
MAX_OBJECT_BYTES = (16 << 20, 4 << 30)  # of one JSON value: at least and at most what DuckDB makes room for
EXACT = 2**53  # up to it a DOUBLE holds every whole number

NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL.*")
_FLAT = frozenset(
    {"VARCHAR", "BIGINT", "UBIGINT", "HUGEINT", "DOUBLE", "BOOLEAN", "NULL"}
)  # values of `json_type`
_UNSAFE = frozenset({"JSON", "JSON[]", "DOUBLE"})  # types of DuckDB's that may hide what the values are
_NO_MAPS = ["map_inference_threshold = -1", "field_appearance_threshold = 0"]


def relation(path: Path, types: Mapping[str, str]) -> str:
    """Return SQL that reads a JSON file in UTF-8 as columns of these types."""
    columns = ", ".join(f"{text(name)}: {text(kind)}" for name, kind in types.items())
    return _read(path, [f"columns = {{{columns}}}"])


def json_types(path: Path) -> dict[str, str]:
    """Return the columns of a JSON file and their DuckDB types, from all rows; lines that are no JSON are ignored.

    A text stays a text, also if it looks like a date. A column of texts and numbers is text, and so is one of whole
    numbers that neither BIGINT nor DOUBLE holds exactly. A column is JSON if it has no value, or objects or lists
    beside other values.

    Raises:
        DataError: DuckDB cannot read the file as a table.
    """
    status = path.stat()
    return dict(_types_of(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _types_of(path: Path, time: int, size: int) -> dict[str, str]:
    state = [VERSION, time, size, duckdb.__version__]
    cached = cache_folder() / "tables" / f"{digest(str(path.resolve()))[7:31]}-types.json"
    if size >= WORTH_KEEPING:
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(cached.read_text())
            if record["state"] == state:
                return dict(record["types"])
    with as_utf8(path) as readable:
        types = _inspect(readable)
    if size >= WORTH_KEEPING:
        with contextlib.suppress(OSError):  # the next command inspects the file again
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cached, json.dumps({"state": state, "types": types}).encode())
    return types


def _inspect(path: Path) -> dict[str, str]:
    types = _inferred(path)
    if list(types) == ["json"] and not is_document(path):  # some line is no object
        with TemporaryDirectory() as work:
            sound = Path(work, "sound.jsonl")
            write_sound_lines(path, sound)
            types = _inferred(sound) if sound.stat().st_size else types
            return _exact(sound, types)
    return _exact(path, types)


def _inferred(path: Path) -> dict[str, str]:
    """Return the types that DuckDB infers from all rows."""
    options = ["sample_size = -1", *([] if is_document(path) else ["ignore_errors = true"])]
    types = _described(_read(path, options))
    if list(types) == ["json"] and types["json"].startswith("MAP"):  # of rows that have few keys in common
        types = _described(_read(path, [*options, *_NO_MAPS]))
    _refuse_case(path, types)
    return types


def _described(read: str) -> dict[str, str]:
    with duckdb.connect() as con:
        table = con.sql(f"SELECT * FROM {read}")
        return {name: _as_text(kind) for name, kind in zip(table.columns, table.types, strict=True)}


def _as_text(kind: Any) -> str:
    """Return a DuckDB type with VARCHAR for types that are guessed from a text: a UUID would lose its case.

    The same holds for integers over 64 bits, which Parquet would round.
    """
    if kind.id == "list":
        return f"{_as_text(kind.children[0][1])}[]"
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {_as_text(inner)}' for name, inner in kind.children)})"
    if kind.id == "map":
        return f"MAP({', '.join(_as_text(inner) for _, inner in kind.children)})"
    text_like = ("uuid", "date", "time", "interval", "hugeint", "uhugeint", "ubigint")
    return "VARCHAR" if kind.id.startswith(text_like) else str(kind)


def _refuse_case(path: Path, types: Mapping[str, str]) -> None:
    """Refuse keys that differ in case alone: a table cannot have both."""
    lower = {name.lower() for name in types}
    renamed = [n for n in types if (m := re.fullmatch(r"(.+)_\d+", n)) and m[1].lower() in lower]
    if not renamed:
        return
    objects = _read(path, []).replace("read_json", "read_json_objects", 1)
    with duckdb.connect() as con:
        keys = {
            k for (k,) in con.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {objects}").fetchall()
        }
    for name in renamed:
        if name not in keys:
            alike = sorted(k for k in keys if k.lower() == name.rpartition("_")[0].lower())
            raise DataError(
                printable(
                    f"{path}: keys that differ in upper and lower case alone: {', '.join(map(repr, alike))}"
                ),
                hint="a table has one column of a name; give them one name, or two that differ",
            )


def _exact(path: Path, types: Mapping[str, str]) -> dict[str, str]:
    """Return types that hold all values exactly."""
    unsafe = [c for c, kind in types.items() if kind in _UNSAFE]
    if not unsafe:
        return dict(types)
    as_json = ", ".join(f"{text(c)}: 'JSON'" for c in unsafe)
    lenient = [] if is_document(path) else ["ignore_errors = true"]
    read = _read(path, [f"columns = {{{as_json}}}", *lenient])
    whole = "TRY_CAST({0}::VARCHAR AS HUGEINT)"
    queries = ", ".join(
        f"list(DISTINCT json_type({quoted(c)})), "
        f"list(DISTINCT list_transform(CASE WHEN json_type({quoted(c)}) = 'ARRAY' THEN {quoted(c)}::JSON[] END, "
        f"lambda x: json_type(x))), "
        f"bool_or(regexp_full_match({quoted(c)}::VARCHAR, '-?[0-9]+') AND "
        f"coalesce(abs({whole.format(quoted(c))}) > {EXACT}, true))"
        for c in unsafe
    )
    with duckdb.connect() as con:
        [row] = con.execute(f"SELECT {queries} FROM {read}").fetchall()
    values_of = {c: row[3 * i : 3 * i + 3] for i, c in enumerate(unsafe)}
    return {c: _settled(kind, *values_of[c]) if c in values_of else kind for c, kind in types.items()}


def _settled(
    kind: str, values: list[str | None], elements: list[list[str] | None], inexact: bool | None
) -> str:
    kinds = {k for k in values or [] if k not in (None, "NULL")}
    if kind == "DOUBLE":
        return "VARCHAR" if inexact else kind
    if kind == "JSON":
        return "VARCHAR" if kinds and kinds <= _FLAT else kind
    inside = {k for some in elements or [] for k in some or []} - {"NULL"}
    return "VARCHAR[]" if inside and inside <= _FLAT else kind


def is_document(path: Path) -> bool:
    """Tell whether a file is a list or one JSON value over several lines, and not JSON lines."""
    with opened(path) as stream:
        head = stream.read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    first, _, rest = head.partition(b"\n")
    lines = first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")
    return head.startswith(b"[") or (ending(path) == "json" and not lines)


def write_sound_lines(path: Path, out: Path) -> dict[str, int]:
    """Copy the lines that are JSON objects in UTF-8 without duplicate keys; return reason → number of other lines."""
    lost = {NOT_UTF8: 0, NO_ROW: 0}
    with opened(path) as stream, open(out, "wb") as sound:
        for line in stream:
            try:
                line.decode()
                if not isinstance(json.loads(line, object_pairs_hook=_once), dict):
                    raise ValueError("no object")
            except UnicodeDecodeError:
                lost[NOT_UTF8] += 1
            except (ValueError, RecursionError):
                lost[NO_ROW] += bool(line.strip())
            else:
                sound.write(line)
    return {reason: count for reason, count in lost.items() if count}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key twice")
    return values


def holds(planned: str, kind: str) -> bool:
    """Tell whether the DuckDB type of an earlier file holds values of another type without loss.

    A numeric type never does: the type for the numbers of all files is known once all files are.
    """
    if planned in ("JSON", "BOOLEAN") or NUMBER.fullmatch(planned):
        return False
    return planned == kind or _holds(duckdb.sqltype(planned), duckdb.sqltype(kind))


def _holds(planned: Any, kind: Any) -> bool:
    if str(kind) == "JSON":  # no value, or several kinds
        return True
    nested = ("list", "struct", "map")
    if planned.id not in nested:
        return str(planned) == str(kind) or (str(planned) == "VARCHAR" and kind.id not in nested)
    if planned.id != kind.id:
        return False
    outer, inner = dict(planned.children), dict(kind.children)
    return inner.keys() <= outer.keys() and all(_holds(outer[name], part) for name, part in inner.items())


def _read(path: Path, options: Sequence[str]) -> str:
    size = path.stat().st_size * (1 if path.suffix.lower() == ".json" else 12)
    most = min(max(MAX_OBJECT_BYTES[0], 2 * size), MAX_OBJECT_BYTES[1])
    form = "auto" if is_document(path) else "newline_delimited"
    settings = [f"format = '{form}'", f"maximum_object_size = {most}", *options]
    return f"read_json({text(plain(path))}, hive_partitioning = false, {', '.join(settings)})"
