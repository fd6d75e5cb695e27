"""Before and after: what an operation does to eight rows, made from the example in its docstring.

A docstring's `Example:` is the step as a recipe would say it, or several; the last is the one that is shown. The
tables are computed where they are printed, so they cannot drift from the code.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import yaml

from curate.datasets.dataset import INFO, MANIFEST, ClassRecord, DatasetInfo, file_sha256, render
from curate.ops import Operation, find
from curate.rows.manifest import CORE, Class, digest
from curate.rows.relation import Rows, columns_of
from curate.rows.sql import quoted, text

CLASSES = (
    Class("tabby", "n02123045"),
    Class("Persian cat", "n02123394"),
    Class("convertible", "n03100240"),
    Class("sports car", "n04285008"),
)
# key, label, caption, width, height, then the columns that some pools have besides the core.
ROWS = (
    ("a1", 0, "a cat on a mat", 640, 480, "en", 0.34, "web", "11"),
    ("a2", 0, "grey tabby asleep in the sun", 300, 300, "en", 0.31, "web", "22"),
    ("a3", 0, "Katze", 500, 100, "de", 0.12, "book", "33"),
    ("b1", 1, "our Persian cat, brushed", 400, 400, "en", 0.29, "book", "44"),
    ("b2", 1, "a cat on a mat", 640, 480, "en", 0.33, "web", "11"),
    ("c1", 2, "convertible with the top down", 800, 200, "en", 0.25, "web", "55"),
    ("c2", 2, "IMG 0042", 150, 150, "en", 0.08, "book", "66"),
    ("d1", 3, "a red sports car", 640, 360, "en", 0.36, "web", "77"),
)
COLUMNS = ("key", "label", "caption", "width", "height", "language", "similarity", "source", "sha256")
KINDS = {"language": "VARCHAR", "similarity": "DOUBLE", "source": "VARCHAR", "sha256": "VARCHAR"}
HUMAN = ("tabby", "Persian cat", "tabby", "Persian cat", "tabby", "convertible", "sports car", "sports car")
FILES = {
    "scores.csv": "key,score,rate,human\n"
    + "".join(f"{row[0]},{i / 8},{i / 10},{HUMAN[i]}\n" for i, row in enumerate(ROWS))
}

# Columns that an operation reads though its example does not name them.
READS = {
    "decontaminate": {"sha256"},
    "dedup": {"sha256"},
    "filter": {"caption", "language", "width", "height"},
    "language": {"caption"},
    "mix": {"source"},
    "text_based": {"caption"},
}


def steps(operation: Operation) -> list[Any]:
    """Return the steps of an operation's example; none where its docstring has no `Example:`."""
    found = operation.doc.partition("Example:\n")[2].split("\n\n")[0]
    parsed = yaml.safe_load(found)
    return parsed if isinstance(parsed, list) else [] if parsed is None else [parsed]


def shown(operation: Operation) -> str:
    """Return the rows before and after an operation's example, as text; empty without an example."""
    wanted = steps(operation)
    if not wanted:
        return ""
    with _rows() as (rows, folder):
        *_, (before, after) = _applied(wanted, rows, folder)
        read = _words(wanted[-1]) | READS.get(operation.name, set())
        return f"before\n\n{_table(before, after, read)}\n\nafter\n\n{_table(after, before, read)}"


def _applied(wanted: list[Any], rows: Rows, folder: Path) -> Iterator[tuple[Rows, Rows]]:
    for step in wanted:
        [(name, value)] = step.items() if isinstance(step, dict) else [(step, None)]
        operation = find(name)
        arguments = operation.signature.bind(value, where=name)
        for parameter in [*operation.signature.files, *operation.signature.datasets]:
            arguments[parameter] = arguments[parameter] and str(folder / arguments[parameter])
        if arguments.get("seed", 0) is None:
            arguments["seed"] = 0
        after = operation(rows, **arguments)
        after = replace(after, columns=columns_of(rows.con, after.name))
        yield rows, after
        rows = after


@contextmanager
def _rows() -> Iterator[tuple[Rows, Path]]:
    """Give the eight rows with their images, and a folder with what else examples name."""
    with duckdb.connect() as con, tempfile.TemporaryDirectory() as folder:
        for name, content in FILES.items():
            (Path(folder) / name).write_text(content)
        kinds = CORE | KINDS
        con.execute(f"CREATE TABLE source ({', '.join(f'{quoted(c)} {kind}' for c, kind in kinds.items())})")
        for row in ROWS:
            _draw(Path(folder) / f"{row[0]}.png", int(row[-1]))
        values = [[*row, f"{row[0]}.png", 0, row[3] * row[4] // 10, "png", "train"] for row in ROWS]
        names = ", ".join(map(quoted, [*COLUMNS, "file", "offset", "size", "ext", "split"]))
        con.executemany(f"INSERT INTO source ({names}) VALUES ({', '.join('?' * len(values[0]))})", values)
        con.execute("UPDATE source SET size = NULL")
        _write_test_set(con, Path(folder) / "test-set")
        yield Rows(con, "source", kinds, CLASSES, root=folder), Path(folder)


def _draw(path: Path, number: int) -> None:
    """Write a small picture that is the same for the same number."""
    from PIL import Image

    pixels = b"".join(hashlib.md5(f"{number} {i}".encode()).digest() for i in range(64))
    Image.frombytes("L", (32, 32), pixels).save(path)


def _write_test_set(con: Any, folder: Path) -> None:
    """Write a dataset that has two of the eight images."""
    folder.mkdir()
    con.execute(
        f"COPY (FROM source WHERE sha256 IN ('22', '77')) TO {text(str(folder / MANIFEST))} (FORMAT parquet)"
    )
    classes = [ClassRecord(index=i, name=c.name, wnid=c.wnid) for i, c in enumerate(CLASSES)]
    info = DatasetInfo(
        name="test-set", digest=digest("test-set"), plan="-", rows=2, bytes=0, root="..", columns=CORE | KINDS,
        classes=classes, recipe={}, source={}, ledger=[], manifest_sha256=file_sha256(folder / MANIFEST),
    )  # fmt: skip
    (folder / INFO).write_bytes(render(info))


def _table(rows: Rows, other: Rows, read: set[str]) -> str:
    """Return rows as a table of text: key, class, and the columns that differ or that are read and hold something."""
    here, there = _content(rows), _content(other)
    columns = ["key", "class"]
    for column in dict.fromkeys([*rows.columns, *other.columns]):
        if column in ("key", "label") or column not in rows.columns:
            continue
        new = column not in other.columns
        differs = any(here[k][column] != there[k].get(column) for k in here.keys() & there.keys())
        known = any(row[column] is not None for row in here.values())
        if new or differs or (column in read and known):
            columns.append(column)
    lines = [columns, *([_text(row[c]) for c in columns] for row in here.values())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _words(value: Any) -> set[str]:
    """Return the words in a step's values, among which are the columns that it names."""
    if isinstance(value, dict):
        value = list(value.values())
    return set().union(*map(_words, value)) if isinstance(value, list) else set(re.split(r"\W+", str(value)))


def _content(rows: Rows) -> dict[str, dict[str, Any]]:
    answer = rows.con.execute(f"FROM {rows} ORDER BY key")
    found = [dict(zip(rows.columns, row, strict=True)) for row in answer.fetchall()]
    names = [c.name for c in rows.classes]
    for row in found:
        row["class"] = None if row["label"] is None else names[row["label"]]
        if row.get("clean_label") is not None:
            row["clean_label"] = names[row["clean_label"]]
    return {row["key"]: row for row in found}


def _text(value: Any) -> str:
    return (
        "NULL"
        if value is None
        else json.dumps(value, ensure_ascii=False)
        if isinstance(value, list)
        else str(value)
    )
