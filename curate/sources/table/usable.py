"""Usable rows of a table: known from the file's statistics where these prove it, else from each value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb

from curate.rows.sql import copy_parquet, parquet, quoted, text
from curate.sources.table.layouts.layout import COLUMNS, whole
from curate.sources.table.layouts.texts import ODD

# Column → reason → SQL that is true if a row cannot be used; the first that is true counts. A comparison with a prefix
# needs only the first bytes of a text, which DuckDB stores beside its length, and so comes before what reads all of it.
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
# Ranges of texts without such a fault. "0" follows "/", so a text in a range of URLs begins as the range does.
SOUND = {
    "url": (("https://", "https:/0"), ("http://", "http:/0")),
    "caption": (("!", "\U0010ffff"),),
}
NUMBERS = ("width", "height", "similarity")
_WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT"})  # fit an INTEGER
_REAL = frozenset({"FLOAT", "DOUBLE", "BIGINT", "UINTEGER", "UBIGINT", "HUGEINT"})
NULLS = '"NULL"'  # DuckDB's type of a column without any value


def footer(path: Path) -> Any:
    """Return what the end of a Parquet file says of its columns and row groups."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).metadata


def write_unusable(file: Path, columns: Mapping[str, str], out: Path) -> dict[str, int]:
    """Write the numbers of the unusable rows to a Parquet file and return reason → number of rows.

    Args:
        columns: column of a row → SQL over the columns of the file.
    """
    faults = [fault for c in UNUSABLE if c in columns for fault in UNUSABLE[c].items()]
    cases = " ".join(f"WHEN {condition} THEN {text(reason)}" for reason, condition in faults)
    selected = ", ".join(f"{sql} AS {c}" for c, sql in columns.items())
    with duckdb.connect() as con:
        con.execute(
            f"CREATE TEMP TABLE unusable AS "
            f"SELECT * FROM (SELECT file_row_number AS number, CASE {cases} END AS reason "
            f"FROM (SELECT {selected}, file_row_number FROM "
            f"{parquet(file, file_row_number=True)})) WHERE reason IS NOT NULL"
        )
        counts = con.execute("SELECT reason, count(*) FROM unusable GROUP BY 1 ORDER BY 1").fetchall()
        copy_parquet(con, "SELECT number FROM unusable ORDER BY number", out)
    return dict(counts)


def count_misfits(file: Path, columns: Mapping[str, tuple[str, str]]) -> dict[str, tuple[int, str]]:
    """Count the values that do not fit the type of their column; return column → count, and an example.

    NaN and blank texts are no values. The file's statistics may prove that whole numbers fit.

    Args:
        columns: column of a row → the file's column, and its DuckDB type.
    """
    fitting = {"INTEGER": _WHOLE, "DOUBLE": _WHOLE | _REAL}
    odd = {
        c: name
        for c, (name, kind) in columns.items()
        if kind not in fitting[COLUMNS[c]] and kind != NULLS and not _proven_small(file, name, kind)
    }
    if not odd:
        return {}
    counts = []
    for c, name in odd.items():
        value = f"{quoted(name)}::VARCHAR"
        fits = whole(value) if COLUMNS[c] == "INTEGER" else f"TRY_CAST({value} AS DOUBLE)"
        misfit = f"trim({value}) <> '' AND lower({value}) <> 'nan' AND {fits} IS NULL"
        counts.append(f"count(*) FILTER ({misfit}), min({value}) FILTER ({misfit})")
    with duckdb.connect() as con:
        [values] = con.execute(f"SELECT {', '.join(counts)} FROM {parquet(file)}").fetchall()
    pairs = {c: (values[2 * i], values[2 * i + 1]) for i, c in enumerate(odd)}
    return {c: (count, example) for c, (count, example) in pairs.items() if count}


def _proven_small(file: Path, column: str, kind: str) -> bool:
    """Tell whether the file's statistics prove that the whole numbers of a column are from 0 to 2^31 - 1."""
    if kind not in ("BIGINT", "UINTEGER", "UBIGINT"):
        return False
    metadata = footer(file)
    places = [i for i in range(metadata.num_columns) if metadata.schema.column(i).path == column]
    about = [
        metadata.row_group(g).column(i).statistics for i in places for g in range(metadata.num_row_groups)
    ]
    return bool(about) and all(a and a.has_min_max and a.min >= 0 and a.max < 2**31 for a in about)


def proven_usable(file: Path, columns: Mapping[str, str]) -> bool:
    """Tell whether the file's statistics prove that every row has a URL of http and a text."""
    metadata = footer(file)
    for column, sql in columns.items():
        place = [i for i in range(metadata.num_columns) if quoted(metadata.schema.column(i).path) == sql]
        if not place:  # made of several columns
            return False
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group).column(place[0]).statistics
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
