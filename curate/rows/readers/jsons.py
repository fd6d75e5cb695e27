"""JSON and JSON lines as SQL: their columns are the keys of all rows, their types hold all values."""

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
    """Return the columns of a JSON file and their DuckDB types, by all rows; lines that are no JSON tell nothing.

    A text stays a text, whether it looks like a date or not. What is a text in one row and a number in another is a
    text, and so are whole numbers that neither BIGINT nor DOUBLE holds exactly. JSON is a column without a value, and
    one whose rows have objects or lists beside other things.

    Raises:
        DataError: DuckDB finds no table in it.
    """
    status = path.stat()
    return dict(_types_of(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=64)
def _types_of(path: Path, time: int, size: int) -> dict[str, str]:
    state = [VERSION, time, size, duckdb.__version__]
    kept = cache_folder() / "tables" / f"{digest(str(path.resolve()))[7:31]}-types.json"
    if size >= WORTH_KEEPING:
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads(kept.read_text())
            if record["state"] == state:
                return dict(record["types"])
    with as_utf8(path) as readable:
        found = _looked_at(readable)
    if size >= WORTH_KEEPING:
        with contextlib.suppress(OSError):  # the next command looks again
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(kept, json.dumps({"state": state, "types": found}).encode())
    return found


def _looked_at(path: Path) -> dict[str, str]:
    found = _guessed(path)
    if list(found) == ["json"] and not is_document(path):  # some line is no object
        with TemporaryDirectory() as work:
            sound = Path(work, "sound.jsonl")
            write_sound_lines(path, sound)
            found = _guessed(sound) if sound.stat().st_size else found
            return _exact(sound, found)
    return _exact(path, found)


def _guessed(path: Path) -> dict[str, str]:
    """Return what DuckDB makes of all rows."""
    options = ["sample_size = -1", *([] if is_document(path) else ["ignore_errors = true"])]
    found = _described(_read(path, options))
    if list(found) == ["json"] and found["json"].startswith("MAP"):  # of rows that have few keys in common
        found = _described(_read(path, [*options, *_NO_MAPS]))
    _refuse_case(path, found)
    return found


def _described(read: str) -> dict[str, str]:
    with duckdb.connect() as con:
        found = con.sql(f"SELECT * FROM {read}")
        return {name: _as_text(kind) for name, kind in zip(found.columns, found.types, strict=True)}


def _as_text(kind: Any) -> str:
    """Return a DuckDB type without those that are guessed from how a text looks: a UUID would lose its case.

    Nor is there one for numbers over 64 bits, which Parquet would round.
    """
    if kind.id == "list":
        return f"{_as_text(kind.children[0][1])}[]"
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {_as_text(inner)}' for name, inner in kind.children)})"
    if kind.id == "map":
        return f"MAP({', '.join(_as_text(inner) for _, inner in kind.children)})"
    text_like = ("uuid", "date", "time", "interval", "hugeint", "uhugeint", "ubigint")
    return "VARCHAR" if kind.id.startswith(text_like) else str(kind)


def _refuse_case(path: Path, found: Mapping[str, str]) -> None:
    """Refuse keys that differ in upper and lower case alone: a table cannot have both."""
    lower = {name.lower() for name in found}
    renamed = [n for n in found if (m := re.fullmatch(r"(.+)_\d+", n)) and m[1].lower() in lower]
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


def _exact(path: Path, found: Mapping[str, str]) -> dict[str, str]:
    """Return types that hold the values of all rows exactly."""
    unsafe = [c for c, kind in found.items() if kind in _UNSAFE]
    if not unsafe:
        return dict(found)
    as_json = ", ".join(f"{text(c)}: 'JSON'" for c in unsafe)
    lenient = [] if is_document(path) else ["ignore_errors = true"]
    read = _read(path, [f"columns = {{{as_json}}}", *lenient])
    whole = "TRY_CAST({0}::VARCHAR AS HUGEINT)"
    told = ", ".join(
        f"list(DISTINCT json_type({quoted(c)})), "
        f"list(DISTINCT list_transform(CASE WHEN json_type({quoted(c)}) = 'ARRAY' THEN {quoted(c)}::JSON[] END, "
        f"lambda x: json_type(x))), "
        f"bool_or(regexp_full_match({quoted(c)}::VARCHAR, '-?[0-9]+') AND "
        f"coalesce(abs({whole.format(quoted(c))}) > {EXACT}, true))"
        for c in unsafe
    )
    with duckdb.connect() as con:
        [row] = con.execute(f"SELECT {told} FROM {read}").fetchall()
    told_of = {c: row[3 * i : 3 * i + 3] for i, c in enumerate(unsafe)}
    return {c: _settled(kind, *told_of[c]) if c in told_of else kind for c, kind in found.items()}


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
    """Whether a file is a list, or one JSON value over several lines, and not one object a line."""
    with opened(path) as stream:
        head = stream.read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    first, _, rest = head.partition(b"\n")
    lines = first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")
    return head.startswith(b"[") or (ending(path) == "json" and not lines)


def write_sound_lines(path: Path, out: Path) -> dict[str, int]:
    """Copy the lines that are JSON objects in UTF-8, no key twice; return how many others there are, by reason."""
    lost = {NOT_UTF8: 0, NO_ROW: 0}
    with opened(path) as stream, open(out, "wb") as kept:
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
                kept.write(line)
    return {reason: count for reason, count in lost.items() if count}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def holds(planned: str, found: str) -> bool:
    """Whether values may be read as the DuckDB type of an earlier file, and nothing of them is lost.

    A number is no such type: which one holds the numbers of all files shows when all are known.
    """
    if planned in ("JSON", "BOOLEAN") or NUMBER.fullmatch(planned):
        return False
    return planned == found or _holds(duckdb.sqltype(planned), duckdb.sqltype(found))


def _holds(planned: Any, found: Any) -> bool:
    if str(found) == "JSON":  # no value, or several kinds
        return True
    nested = ("list", "struct", "map")
    if planned.id not in nested:
        return str(planned) == str(found) or (str(planned) == "VARCHAR" and found.id not in nested)
    if planned.id != found.id:
        return False
    there, here = dict(planned.children), dict(found.children)
    return here.keys() <= there.keys() and all(_holds(there[name], kind) for name, kind in here.items())


def _read(path: Path, options: Sequence[str]) -> str:
    size = path.stat().st_size * (1 if path.suffix.lower() == ".json" else 12)
    most = min(max(MAX_OBJECT_BYTES[0], 2 * size), MAX_OBJECT_BYTES[1])
    form = "auto" if is_document(path) else "newline_delimited"
    told = [f"format = '{form}'", f"maximum_object_size = {most}", *options]
    return f"read_json({text(plain(path))}, hive_partitioning = false, {', '.join(told)})"
