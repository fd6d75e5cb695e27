"""Files of a table: copied to this machine, made into Parquet, hashed, their unusable rows numbered.

The cache keeps all of this as long as the file does not change, so that a second slice of a table reads the columns
that it asks for and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb

from curate.datasets.dataset import file_sha256
from curate.errors import DataError, first_line, printable
from curate.io.files import cache_folder, unfinished, write_atomic
from curate.io.paths import RemotePath
from curate.io.stores import is_remote
from curate.rows.readers.repairs import NOT_UTF8
from curate.rows.relation import columns_of
from curate.rows.sql import copy_parquet, quoted
from curate.rows.sql import parquet as read_parquet
from curate.sources.table.layouts.guessing import Guess, guess, guess_headerless
from curate.sources.table.layouts.layout import TableLayout
from curate.sources.table.layouts.texts import odd_sql
from curate.sources.table.text_files import as_parquet, headless, sample, text_columns
from curate.sources.table.usable import (
    NULLS,
    NUMBERS,
    UNUSABLE,
    count_misfits,
    footer,
    proven_usable,
    write_unusable,
)
from curate.sources.table.utf8 import cleaned

_KINDS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
ENDINGS = (*_KINDS, *(kind + packed for kind in _KINDS[1:] for packed in (".gz", ".zst")))

# Prefixes of what stands beside tables: `.export.json`, Spark's `_SUCCESS` and `_temporary/`.
HIDDEN = (".", "_")
VERSION = 3  # of what is kept of a file, and of how text files are read

_SURE = re.compile(r"duckdb", re.IGNORECASE)  # writers that look at each text: it is UTF-8
ROW_NUMBER = "file_row_number"
_PATHS = ("parquet", "left_out")  # fields of TableFile, which JSON keeps as texts


@dataclass(frozen=True)
class TableFile:
    """One file of a table, as inspected.

    Args:
        file: the name in the recipe.
        sha256: of the published bytes.
        parquet: the file that the rows are read from: the file itself, or a Parquet copy in the cache.
        columns: of `parquet`, and their DuckDB types.
        rows: in the file, usable or not.
        unusable: reason → number of rows.
        left_out: a Parquet file with the `number` of each unusable row, from 0; None if all are usable.
        misfits: column of a row → number of values that do not fit its type and become NULL, and an example.
    """

    file: str
    sha256: str
    parquet: Path
    columns: Mapping[str, str]
    rows: int
    unusable: Mapping[str, int]
    left_out: Path | None
    misfits: Mapping[str, tuple[int, str]]


def local_file(file: str) -> Path:
    """Return the path of a file on this machine; a remote file is copied to the cache once.

    Raises:
        DataError: the store does not answer.
    """
    if not is_remote(file):
        return Path(file)
    copy = tables_folder() / "copies" / short_name(file) / file.rpartition("/")[2]
    state = copy.with_name("state")
    remote = RemotePath(file)
    current = remote.state()
    if not copy.exists() or not state.exists() or state.read_text() != current:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(copy) as beside:
            remote.fetch(beside)
        write_atomic(state, current.encode())
    return copy


def columns_in(path: Path, layout: TableLayout | None, file: str) -> dict[str, str]:
    """Return the columns of a file and their DuckDB types: texts in CSV and TSV, `NULLS` for a column without values.

    Raises:
        DataError: the file is no table.
    """
    try:
        if not _is_parquet(path):
            return text_columns(path, layout)
        with duckdb.connect() as con:
            types = columns_of(con, f"(SELECT * FROM {read_parquet(path)})")
    except duckdb.Error as error:
        raise DataError(
            f"{file}: cannot be read as a table ({first_line(error)})", hint="is the file complete?"
        ) from None
    return types | dict.fromkeys(_without_values(path, types), NULLS)


def _without_values(path: Path, columns: Mapping[str, str]) -> list[str]:
    """Return the columns of a Parquet file that have no type, or are JSON and all NULL by the file's statistics."""
    metadata = footer(path)
    schema = [metadata.schema.column(i) for i in range(metadata.num_columns)]
    bare = {c.path for c in schema if c.logical_type.type == "NULL"}
    for i, column in enumerate(schema):
        if columns.get(column.path) == "JSON":
            about = [metadata.row_group(g).column(i) for g in range(metadata.num_row_groups)]
            if all(a.statistics and a.statistics.null_count == a.num_values for a in about):
                bare.add(column.path)
    return sorted(bare & columns.keys())


def guess_layout(path: Path, file: str) -> Guess:
    """Return the layout that a file seems to have.

    Raises:
        RecipeError: no columns look like URLs and texts.
    """
    if not _is_parquet(path) and headless(path):
        return guess_headerless(list(sample(path)), where=file)
    return guess(columns_in(path, None, file), where=file)


def inspect_file(file: str, layout: TableLayout, planned: Mapping[str, str], stem: Path) -> TableFile:
    """Inspect a file of a table.

    Args:
        file, layout, planned: see `known_file`.
        stem: the path of the files that are made, without their endings.

    Raises:
        RecipeError, DataError: the file is no table of this layout.
    """
    path = local_file(file)
    stem.parent.mkdir(parents=True, exist_ok=True)
    made = stem.with_suffix(".parquet")
    parquet, unusable = path, dict[str, int]()
    if not _is_parquet(path):
        parquet, unusable = as_parquet(path, layout, made, file, planned)
    elif not _has_sure_texts(path, file):
        parquet, broken = cleaned(path, made, file)
        unusable = {NOT_UTF8: broken} if broken else {}
    columns = columns_in(parquet, None, file)
    chosen = layout.select(columns, where=file)
    if clash := [c for c in columns if c.lower() == ROW_NUMBER]:
        parquet = _renamed(parquet, chosen, clash[0], made)
        columns = columns_in(parquet, None, file)
    rows = footer(parquet).num_rows + sum(unusable.values())
    needed = {c: chosen[c] for c in UNUSABLE if c == "caption" or c in layout.identity}
    texts = layout.source_of("caption", columns)
    if texts and columns[texts] == "JSON":
        needed["odd_text"] = odd_sql(quoted(texts))
    left_out = None
    if not proven_usable(parquet, needed):
        left_out = stem.with_name(f"{stem.name}-left-out.parquet")
        counts = write_unusable(parquet, needed, left_out)
        unusable |= counts
        left_out = left_out if counts else None
    numbers = {c: name for c in NUMBERS if (name := layout.source_of(c, columns)) and c in chosen}
    misfits = count_misfits(parquet, {c: (name, columns[name]) for c, name in numbers.items()})
    return TableFile(file, file_sha256(path), parquet, columns, rows, unusable, left_out, misfits)


def known_file(file: str, layout: TableLayout, planned: Mapping[str, str], state: Sequence[str]) -> TableFile:
    """Return an inspected file, from the cache if its state has not changed.

    Args:
        planned: for JSON, the columns of the table's first file and their types.
        state: from `state_of`.

    Raises:
        RecipeError, DataError: the file is no table of this layout.
    """
    stem = short_name(file, json.dumps([layout.name, layout.columns, layout.headers, planned]))
    cached = tables_folder() / f"{stem}.json"
    wanted = [VERSION, *state]
    try:
        record = json.loads(cached.read_text())
        if record.pop("state") == wanted:
            paths = {n: Path(record[n]) if record[n] else None for n in _PATHS}
            known = TableFile(**(record | paths))
            if known.parquet.exists() and (known.left_out is None or known.left_out.exists()):
                return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing usable in the cache
    try:
        inspected = inspect_file(file, layout, planned, tables_folder() / stem)
        record = {n: str(v) if n in _PATHS and v else v for n, v in asdict(inspected).items()}
        write_atomic(cached, json.dumps(record | {"state": wanted}).encode())
    except duckdb.Error as error:
        raise DataError(
            f"{file}: cannot be read ({first_line(error)})", hint="is the file complete? fetch it again"
        ) from None
    except OSError as error:
        raise DataError(
            f"{file}: what is known of it cannot be kept ({error.strerror})",
            hint="set CURATE_CACHE to a folder with room",
        ) from error
    return inspected


def _renamed(parquet: Path, chosen: Mapping[str, str], column: str, out: Path) -> Path:
    """Copy a file and rename its column that has DuckDB's own name for the numbers of rows."""
    name = next(c for c, sql in chosen.items() if sql == quoted(column))
    renamed = f"SELECT * EXCLUDE ({quoted(column)}), {quoted(column)} AS {quoted(name)}"
    with duckdb.connect() as con:
        copy_parquet(con, f"{renamed} FROM {read_parquet(parquet)}", out)
    return out


def _has_sure_texts(path: Path, file: str) -> bool:
    try:
        return bool(_SURE.search(footer(path).created_by or ""))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: not a Parquet file ({printable(str(error))})", hint="fetch it again"
        ) from None


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def tables_folder() -> Path:
    """Return the folder of the cache that holds tables."""
    return cache_folder() / "tables"


def short_name(*parts: str) -> str:
    """Return a short name for some texts, by their digest."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def state_of(file: str) -> list[str]:
    """Return what changes when a file does: size, times and inode, or what the store says of it."""
    if is_remote(file):
        return [RemotePath(file).state()]
    status = os.stat(file)
    return [str(n) for n in (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)]
