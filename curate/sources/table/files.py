"""The files of a table: copied here where they are elsewhere, as Parquet, hashed, their unusable rows known by number.

What is found out about a file is kept in the cache for as long as the file's state stays, so that the second slice
of a table reads the columns that it asks for, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets.dataset import file_sha256
from curate.errors import DataError, first_line, printable
from curate.io.files import cache_folder, unfinished, write_atomic
from curate.io.paths import RemotePath
from curate.io.stores import is_remote
from curate.rows.readers.repairs import NOT_UTF8
from curate.rows.relation import columns_of
from curate.rows.sql import copy_parquet, quoted, text
from curate.rows.sql import parquet as read_parquet
from curate.sources.table.layouts.guessing import Guess, guess, guess_headerless
from curate.sources.table.layouts.layout import COLUMNS, TableLayout, whole
from curate.sources.table.layouts.texts import ODD, odd_sql
from curate.sources.table.text_files import as_parquet, headless, sample, text_columns
from curate.sources.table.utf8 import cleaned

_KINDS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
ENDINGS = (*_KINDS, *(kind + packed for kind in _KINDS[1:] for packed in (".gz", ".zst")))

HIDDEN = (
    ".",
    "_",
)  # what names begin with that stand beside tables: `.export.json`, Spark's `_SUCCESS` and `_temporary/`

# Column → why the row cannot be used → SQL that tells; the first that is true. Comparisons with a start are made in
# the first bytes of a text, which DuckDB keeps beside its length, and so come before what reads all of it.
UNUSABLE = {
    "url": {
        "no URL": r"url IS NULL OR trim(url) = ''",
        "not a URL of http or https": (
            "NOT (starts_with(url, 'https://') OR starts_with(url, 'http://') "
            "OR regexp_matches(url, '^https?://', 'i'))"
        ),
    },
    "odd_text": {ODD: "odd_text"},  # of a caption that is JSON
    "caption": {"no text": r"caption IS NULL OR (caption < '!' AND trim(caption, E' \t\r\n\f\v') = '')"},
}
# Ranges of texts that have no such fault. "0" comes after "/": what lies in one of the URLs' begins as its start does.
SOUND = {
    "url": (("https://", "https:/0"), ("http://", "http:/0")),
    "caption": (("!", "\U0010ffff"),),
}
NUMBERS = ("width", "height", "similarity")
_WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT"})  # fit an INTEGER
_REAL = frozenset({"FLOAT", "DOUBLE", "BIGINT", "UINTEGER", "UBIGINT", "HUGEINT"})
_SURE = re.compile(r"duckdb", re.IGNORECASE)  # writers that look at each text: it is UTF-8
NULLS = '"NULL"'  # DuckDB's type of a column without any value
ROW_NUMBER = "file_row_number"


@dataclass(frozen=True)
class TableFile:
    """What is known of one file of a table.

    Args:
        file: as the recipe names it.
        sha256: of the bytes as published.
        parquet: where its rows are read from: the file itself, or what was made of it in the cache.
        columns: of that, and their DuckDB types.
        rows: in the file, usable or not.
        unusable: reason → rows.
        left_out: a Parquet file with the `number` of each unusable row, from 0; None where there is none.
        misfits: column of ours → how many of its values do not fit its type, and so are NULL, and one of them.
    """

    file: str
    sha256: str
    parquet: Path
    columns: Mapping[str, str]
    rows: int
    unusable: Mapping[str, int]
    left_out: Path | None
    misfits: Mapping[str, tuple[int, str]]


def here(file: str) -> Path:
    """Return where a file is on this machine; one that is elsewhere is copied to the cache once.

    Raises:
        DataError: the store does not answer.
    """
    if not is_remote(file):
        return Path(file)
    copy = folder() / "copies" / name_of(file) / file.rpartition("/")[2]
    state = copy.with_name("state")
    remote = RemotePath(file)
    now = remote.state()
    if not copy.exists() or not state.exists() or state.read_text() != now:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with unfinished(copy) as beside:
            remote.fetch(beside)
        write_atomic(state, now.encode())
    return copy


def columns_in(path: Path, layout: TableLayout | None, file: str) -> dict[str, str]:
    """Return the columns of a file and their DuckDB types, of CSV and TSV all text; `NULLS` where it has no value.

    Raises:
        DataError: it is no table.
    """
    try:
        if not _is_parquet(path):
            return text_columns(path, layout)
        with duckdb.connect() as con:
            found = columns_of(con, f"(SELECT * FROM {read_parquet(path)})")
    except duckdb.Error as error:
        raise DataError(
            f"{file}: cannot be read as a table ({first_line(error)})", hint="is it whole?"
        ) from None
    return found | dict.fromkeys(_without_values(path, found), NULLS)


def _without_values(path: Path, columns: Mapping[str, str]) -> list[str]:
    """Return the columns of a Parquet file that are of no type, or JSON of which the file knows that all is NULL."""
    footer = _footer(path)
    schema = [footer.schema.column(i) for i in range(footer.num_columns)]
    bare = {c.path for c in schema if c.logical_type.type == "NULL"}
    for i, column in enumerate(schema):
        if columns.get(column.path) == "JSON":
            about = [footer.row_group(g).column(i) for g in range(footer.num_row_groups)]
            if all(a.statistics and a.statistics.null_count == a.num_values for a in about):
                bare.add(column.path)
    return sorted(bare & columns.keys())


def guessed(path: Path, file: str) -> Guess:
    """Return the layout that a file looks like.

    Raises:
        RecipeError: nothing in it looks like URLs and texts.
    """
    if not _is_parquet(path) and headless(path):
        return guess_headerless(list(sample(path)), where=file)
    return guess(columns_in(path, None, file), where=file)


def looked_at(file: str, layout: TableLayout, planned: Mapping[str, str], place: Path) -> TableFile:
    """Return what a file tells, read anew; what is made of it goes to files that are called as `place` is.

    Raises:
        RecipeError, DataError: it is no such table.
    """
    path = here(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    made = place.with_suffix(".parquet")
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
    rows = _footer(parquet).num_rows + sum(unusable.values())
    needed = {c: chosen[c] for c in UNUSABLE if c == "caption" or c in layout.identity}
    texts = layout.source_of("caption", columns)
    if texts and columns[texts] == "JSON":
        needed["odd_text"] = odd_sql(quoted(texts))
    left_out = None
    if not _proven_usable(parquet, needed):
        left_out = place.with_name(f"{place.name}-left-out.parquet")
        counts = _unusable(parquet, needed, left_out)
        unusable |= counts
        left_out = left_out if counts else None
    numbers = {c: name for c in NUMBERS if (name := layout.source_of(c, columns)) and c in chosen}
    misfits = _misfits(parquet, {c: (name, columns[name]) for c, name in numbers.items()})
    return TableFile(file, file_sha256(path), parquet, columns, rows, unusable, left_out, misfits)


def _renamed(parquet: Path, chosen: Mapping[str, str], column: str, out: Path) -> Path:
    """Copy a file whose column is called as DuckDB calls the numbers of rows, with another name for it."""
    name = next(c for c, sql in chosen.items() if sql == quoted(column))
    renamed = f"SELECT * EXCLUDE ({quoted(column)}), {quoted(column)} AS {quoted(name)}"
    with duckdb.connect() as con:
        copy_parquet(con, f"{renamed} FROM {read_parquet(parquet)}", out)
    return out


def _unusable(parquet: Path, columns: Mapping[str, str], out: Path) -> dict[str, int]:
    """Write the numbers of the rows that cannot be used, and return how many there are for each reason.

    Args:
        columns: of ours, as SQL over the file's.
    """
    faults = [fault for c in UNUSABLE if c in columns for fault in UNUSABLE[c].items()]
    cases = " ".join(f"WHEN {condition} THEN {text(reason)}" for reason, condition in faults)
    told = ", ".join(f"{sql} AS {c}" for c, sql in columns.items())
    with duckdb.connect() as con:
        con.execute(
            f"CREATE TEMP TABLE found AS SELECT * FROM (SELECT file_row_number AS number, CASE {cases} END AS reason "
            f"FROM (SELECT {told}, file_row_number FROM "
            f"{read_parquet(parquet, file_row_number=True)})) WHERE reason IS NOT NULL"
        )
        counts = con.execute("SELECT reason, count(*) FROM found GROUP BY 1 ORDER BY 1").fetchall()
        copy_parquet(con, "SELECT number FROM found ORDER BY number", out)
    return dict(counts)


def _misfits(parquet: Path, columns: Mapping[str, tuple[str, str]]) -> dict[str, tuple[int, str]]:
    """Return column of ours → how many of its values do not fit its type, and one of them.

    NaN and a blank text are no value. Of whole numbers the file's own statistics may prove that they fit.

    Args:
        columns: column of ours → the file's column, and its DuckDB type.
    """
    fitting = {"INTEGER": _WHOLE, "DOUBLE": _WHOLE | _REAL}
    odd = {
        c: name
        for c, (name, kind) in columns.items()
        if kind not in fitting[COLUMNS[c]] and kind != NULLS and not _proven_small(parquet, name, kind)
    }
    if not odd:
        return {}
    told = []
    for c, name in odd.items():
        value = f"{quoted(name)}::VARCHAR"
        fits = whole(value) if COLUMNS[c] == "INTEGER" else f"TRY_CAST({value} AS DOUBLE)"
        misfit = f"trim({value}) <> '' AND lower({value}) <> 'nan' AND {fits} IS NULL"
        told.append(f"count(*) FILTER ({misfit}), min({value}) FILTER ({misfit})")
    with duckdb.connect() as con:
        [found] = con.execute(f"SELECT {', '.join(told)} FROM {read_parquet(parquet)}").fetchall()
    pairs = {c: (found[2 * i], found[2 * i + 1]) for i, c in enumerate(odd)}
    return {c: (count, example) for c, (count, example) in pairs.items() if count}


def _proven_small(parquet: Path, column: str, kind: str) -> bool:
    """Whether a file's own statistics say that whole numbers of a column are from 0 and below 2^31."""
    if kind not in ("BIGINT", "UINTEGER", "UBIGINT"):
        return False
    footer = _footer(parquet)
    places = [i for i in range(footer.num_columns) if footer.schema.column(i).path == column]
    about = [footer.row_group(g).column(i).statistics for i in places for g in range(footer.num_row_groups)]
    return bool(about) and all(a and a.has_min_max and a.min >= 0 and a.max < 2**31 for a in about)


def _proven_usable(parquet: Path, columns: Mapping[str, str]) -> bool:
    """Whether the file's own statistics say that every row has a URL of http and a text: then none is looked at."""
    footer = _footer(parquet)
    for column, sql in columns.items():
        place = [i for i in range(footer.num_columns) if quoted(footer.schema.column(i).path) == sql]
        if not place:  # made of several columns
            return False
        for group in range(footer.num_row_groups):
            about = footer.row_group(group).column(place[0]).statistics
            if not (about and about.has_min_max and about.has_null_count and not about.null_count):
                return False
            try:
                ends = about.min, about.max
            except UnicodeDecodeError:
                return False
            ranges = SOUND[column] if isinstance(ends[0], str) else ()
            if not any(least <= ends[0] and ends[1] < most for least, most in ranges):
                return False
    return True


def _has_sure_texts(path: Path, file: str) -> bool:
    try:
        return bool(_SURE.search(_footer(path).created_by or ""))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: not a Parquet file ({printable(str(error))})", hint="fetch it again"
        ) from None


def _footer(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def folder() -> Path:
    """Return where in the cache tables are."""
    return cache_folder() / "tables"


def name_of(*parts: str) -> str:
    """Return a short name that stands for these texts."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
