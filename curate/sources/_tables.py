"""The files of a table: copied here where they are elsewhere, as Parquet, hashed, their unusable rows known by number.

What is found out about a file is kept in the cache for as long as the file's state stays, so that the second slice
of a table reads the columns that it asks for, and nothing else.
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

from curate.datasets import file_sha256
from curate.errors import DataError
from curate.files import cache_folder, write_atomic
from curate.layouts import Guess, Layout, guess, guess_headerless
from curate.manifests import parquet as read_parquet
from curate.manifests import quoted, text
from curate.places import Remote, is_remote
from curate.rows import columns_of
from curate.sources._texts import NOT_UTF8, as_parquet, cleaned, headless, relation, sample

VERSION = 1  # of what is kept of a file
_KINDS = (".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
ENDINGS = (*_KINDS, *(kind + packed for kind in _KINDS[1:] for packed in (".gz", ".zst")))

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
    "caption": {"no text": r"caption IS NULL OR (caption < '!' AND trim(caption, E' \t\r\n\f\v') = '')"},
}
# Texts between which every text has no such fault. ";" comes after "://": what begins otherwise and lies between
# (httpa://) is counted when it is fetched.
SOUND = {"url": ("http://", "https;"), "caption": ("!", "\U0010ffff")}
# Writers that cannot write a text that is not UTF-8: Java's texts are not bytes, and DuckDB looks at each.
_SURE = re.compile(r"parquet-mr|duckdb", re.IGNORECASE)


@dataclass(frozen=True)
class TableFile:
    """What is known of one file of a table.

    Args:
        file: as the recipe names it.
        sha256: of the bytes as published.
        parquet: where its rows are read from: the file itself, or what was made of it in the cache.
        rows: in the file, usable or not.
        unusable: reason → rows.
        left_out: a Parquet file with the `number` of each unusable row, from 0; None where there is none.
    """

    file: str
    sha256: str
    parquet: Path
    rows: int
    unusable: Mapping[str, int]
    left_out: Path | None


def here(file: str) -> Path:
    """Return where a file is on this machine; one that is elsewhere is copied to the cache once.

    Raises:
        DataError: the store does not answer.
    """
    if not is_remote(file):
        return Path(file)
    copy = _folder() / "copies" / _name(file) / file.rpartition("/")[2]
    state = copy.with_name("state")
    remote = Remote(file)
    now = remote.state()
    if not copy.exists() or not state.exists() or state.read_text() != now:
        copy.parent.mkdir(parents=True, exist_ok=True)
        beside = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
        try:
            remote.fetch(beside)
            os.replace(beside, copy)
        finally:
            beside.unlink(missing_ok=True)
        write_atomic(state, now.encode())
    return copy


def columns_in(path: Path, layout: Layout | None, file: str) -> dict[str, str]:
    """Return the columns of a file and their DuckDB types, of CSV and TSV all text.

    Raises:
        DataError: it is no table.
    """
    read = read_parquet(path) if _is_parquet(path) else relation(path, layout, planning=True)
    try:
        with duckdb.connect() as con:
            return columns_of(con, f"(SELECT * FROM {read})")
    except duckdb.Error as error:
        told = str(error).split("\n")[0]
        raise DataError(f"{file}: cannot be read as a table ({told})", hint="is it whole?") from None


def guessed(path: Path, file: str) -> Guess:
    """Return the layout that a file looks like.

    Raises:
        RecipeError: nothing in it looks like URLs and texts.
    """
    if not _is_parquet(path) and headless(path):
        return guess_headerless(list(sample(path, None)), where=file)
    return guess(columns_in(path, None, file), where=file)


def prepare(file: str, layout: Layout, chosen: Mapping[str, str], state: Sequence[str]) -> TableFile:
    """Return what is known of a file, from the cache where its state is that of the last time.

    Args:
        layout: how the file is laid out.
        chosen: column → SQL over the file's columns, as `Layout.select` gives it.
        state: what changes when the file does.

    Raises:
        RecipeError, DataError: it is no such table.
    """
    place = _name(file, layout.name, json.dumps(chosen))
    kept = _folder() / f"{place}.json"
    wanted = [VERSION, *state]
    try:
        record = json.loads(kept.read_text())
        if record.pop("state") == wanted:
            paths = {n: Path(record[n]) if record[n] else None for n in _PATHS}
            known = TableFile(**(record | paths))
            if known.parquet.exists() and (known.left_out is None or known.left_out.exists()):
                return known
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing kept, or nothing usable
    try:
        found = _looked_at(file, layout, chosen, _folder() / place)
        record = {n: str(v) if n in _PATHS and v else v for n, v in asdict(found).items()}
        write_atomic(kept, json.dumps(record | {"state": wanted}).encode())
    except OSError as error:
        raise DataError(
            f"{file}: what is known of it cannot be kept ({error.strerror})",
            hint="set CURATE_CACHE to a folder with room",
        ) from error
    return found


_PATHS = ("parquet", "left_out")


def _looked_at(file: str, layout: Layout, chosen: Mapping[str, str], place: Path) -> TableFile:
    path = here(file)
    place.parent.mkdir(parents=True, exist_ok=True)
    parquet, unusable = path, dict[str, int]()
    if not _is_parquet(path):
        parquet, unusable = as_parquet(path, layout, place.with_suffix(".parquet"), file)
    elif not _has_sure_texts(path, file):
        parquet, broken = cleaned(path, place.with_suffix(".parquet"), file)
        unusable = {NOT_UTF8: broken} if broken else {}
    rows = _count(parquet) + sum(unusable.values())
    left_out = None
    columns = [c for c in UNUSABLE if c == "caption" or c in layout.identity]
    if not _proven_usable(parquet, {c: chosen[c] for c in columns}):
        left_out = place.with_name(f"{place.name}-left-out.parquet")
        counts = _unusable(parquet, {c: chosen[c] for c in columns}, left_out)
        unusable |= counts
        left_out = left_out if counts else None
    return TableFile(file, file_sha256(path), parquet, rows, unusable, left_out)


def _unusable(parquet: Path, columns: Mapping[str, str], out: Path) -> dict[str, int]:
    """Write the numbers of the rows that cannot be used, and return how many there are for each reason.

    Args:
        columns: of ours, as SQL over the file's.
    """
    faults = [fault for c in columns for fault in UNUSABLE[c].items()]
    cases = " ".join(f"WHEN {condition} THEN {text(reason)}" for reason, condition in faults)
    told = ", ".join(f"{sql} AS {c}" for c, sql in columns.items())
    beside = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with duckdb.connect() as con:
        con.execute(
            f"CREATE TEMP TABLE found AS SELECT * FROM (SELECT file_row_number AS number, CASE {cases} END AS reason "
            f"FROM (SELECT {told}, file_row_number FROM "
            f"{read_parquet(parquet, file_row_number=True)})) WHERE reason IS NOT NULL"
        )
        counts = con.execute("SELECT reason, count(*) FROM found GROUP BY 1 ORDER BY 1").fetchall()
        con.execute(
            f"COPY (SELECT number FROM found ORDER BY number) TO {text(str(beside))} (FORMAT parquet)"
        )
    os.replace(beside, out)
    return dict(counts)


def _proven_usable(parquet: Path, columns: Mapping[str, str]) -> bool:
    """Whether the file's own statistics say that every row has a URL of http and a text: then none is looked at."""
    import pyarrow.parquet as pq

    footer = pq.ParquetFile(parquet).metadata
    for column, sql in columns.items():
        least, most = SOUND[column]
        place = [i for i in range(footer.num_columns) if quoted(footer.schema.column(i).path) == sql]
        if not place:  # made of several columns
            return False
        for group in range(footer.num_row_groups):
            about = footer.row_group(group).column(place[0]).statistics
            if about is None or not about.has_min_max or not about.has_null_count or about.null_count:
                return False
            if not (isinstance(about.min, str) and about.min >= least and about.max < most):
                return False
    return True


def _has_sure_texts(path: Path, file: str) -> bool:
    import pyarrow.parquet as pq

    try:
        return bool(_SURE.search(pq.ParquetFile(path).metadata.created_by or ""))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not a Parquet file ({error})", hint="fetch it again") from None


def _count(parquet: Path) -> int:
    import pyarrow.parquet as pq

    return pq.ParquetFile(parquet).metadata.num_rows


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def _folder() -> Path:
    return cache_folder() / "tables"


def _name(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
