"""A table of URLs and texts: rows whose bytes nobody has fetched yet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import duckdb

from curate.errors import DataError, RecipeError, first_line, printable
from curate.io.executors import cores
from curate.io.files import cache_folder, write_atomic
from curate.io.paths import RemotePath, find_files
from curate.io.stores import is_remote
from curate.rows.manifest import CORE, digest, ordered
from curate.rows.readers.encodings import is_json
from curate.rows.readers.jsons import NUMBER
from curate.rows.relation import columns_of
from curate.rows.sql import parquet, quoted
from curate.sources import Index, Progress, Source
from curate.sources._index_cache import LeftOut, require_rows
from curate.sources.table.files import (
    ENDINGS,
    HIDDEN,
    NULLS,
    NUMBERS,
    TableFile,
    columns_in,
    folder,
    guessed,
    here,
    looked_at,
    name_of,
)
from curate.sources.table.layouts.guessing import find
from curate.sources.table.layouts.layout import COLUMNS, NEEDED, TableLayout
from curate.sources.table.layouts.layout import kinds as kinds_of

VERSION = 3  # of what is kept of a file, and of how text files are read
As = Literal[
    "auto", "laion", "cc3m", "cc12m", "yfcc15m", "redcaps", "wit", "shutterstock", "datacomp", "imagenet-captions",
    "sbu",
]  # fmt: skip


def table(*, path: str | list[str], as_: As = "auto") -> Source:
    """Take the rows of a table of URLs and texts; `curate fetch` brings their images.

    Parquet, CSV, TSV, JSON and JSON lines, plain or as `.gz` or `.zst`. Rows get `url`, `caption` and, if the table
    has them, `width`, `height`, `similarity`, `language`, `nsfw` and `sha256`; other columns are carried along, with
    names in lower case: those of CSV and TSV as texts, those of JSON with a type for all rows. A caption that is
    a list of texts becomes `captions`, and its first the `caption`. `key` is the MD5 of URL and text, so a row is the
    same row in every release. Rows without a URL of http or https, without a text, or that are not UTF-8 are left out
    and counted, and so are lines that are not a row; rows with the same URL and text are reduced to one. Invalid or too
    large numbers become NULL and are counted. The table is not copied: steps that look at each row alone (`filter`,
    `where`, `compute`, `clip_score`) and draws (`sample`, `mix`) read it in place; other steps get the rows in DuckDB.

    Args:
        path: a file, a folder of them, a pattern such as `/laion/part-*.parquet`, or a list of these; local or a
            URL. Remote files are copied to the cache once. In a folder, names that begin with `.` or `_` are
            ignored.
        as: the layout, see docs/layouts.md; auto chooses it by the names of the columns, and the ledger says which.
    """
    return TableSource([path] if isinstance(path, str) else path, as_)


class TableSource(Source):
    """The source that `table` opens."""

    has_bytes = False

    def __init__(self, paths: list[str], name: str) -> None:
        self.files = sorted({f for path in paths for f in find_files(path, ENDINGS, "table", hidden=HIDDEN)})
        if not self.files:
            raise RecipeError(
                f"no table at {', '.join(paths)}", hint=f"its files end in {', '.join(ENDINGS[:4])}, …"
            )
        if odd := [f for f in self.files if not f.lower().endswith(ENDINGS)]:
            raise RecipeError(
                f"{odd[0]}: not a table by its ending",
                hint=f"take {', '.join(ENDINGS[:6])}; text files also as .gz or .zst",
            )
        local = [os.path.dirname(os.path.abspath(f)) for f in self.files if not is_remote(f)]
        self.root = os.path.commonpath(local) if local else str(cache_folder() / "tables")
        self.classes = ()
        path, where = here(self.files[0]), self.files[0]
        guess = guessed(path, where) if name == "auto" else None
        self.layout = guess.layout if guess else find(name)
        self.why = guess.why if guess else None
        there = columns_in(path, self.layout, where)
        texts = self.layout.source_of("caption", there)
        # A caption may be one text in one file and a list in the next.
        self.planned = {c: kind for c, kind in there.items() if c != texts} if is_json(path) else {}
        self.chosen = self.layout.select(there, where=where)
        kinds = kinds_of(self.chosen, there)
        self.columns = dict(CORE) | {c: "INTEGER" if kind == NULLS else kind for c, kind in kinds.items()}

    @property
    def homes(self) -> list[str]:
        """The files themselves: a build beside them is fine."""
        return self.files

    def fingerprint(self) -> str:
        """Name, size and time of each file; for a remote one what its store says of it."""
        return digest([self.layout.name, [[f, *_state(f)] for f in self.files]])

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Hash the files, and find the rows that cannot be used; what is known of a file is not looked at again."""
        left_out = LeftOut()
        found: list[TableFile] = []
        with ThreadPoolExecutor(min(len(self.files), cores())) as pool:
            for known in pool.map(self._prepared, self.files):
                found.append(known)
                for reason, count in known.unusable.items():
                    left_out.add(reason, known.file, count)
                if progress:
                    progress(1, len(self.files))
        rows = sum(f.rows - sum(f.unusable.values()) for f in found)
        require_rows(rows, self.files[0], left_out, what="rows that can be used")
        views = [_View.of(self.layout, f) for f in found]
        # What is read of the same bytes may change with how texts are read.
        read = [] if all(f.lower().endswith(".parquet") for f in self.files) else [VERSION]
        content = digest(
            ["table", self.layout.name, sorted(self.chosen.items()), [f.sha256 for f in found], *read]
        )
        return Index(
            classes=(),
            digest=content,
            rows=rows,
            query=self._query(views),
            files=tuple(p for f in found for p in (f.parquet, f.left_out) if p),
            streamed=True,
            notes=tuple(self._notes(views)),
            left_out=left_out.names,
            counts=left_out.counts,
        )

    def _prepared(self, file: str) -> TableFile:
        return _known(file, self.layout, self.planned, _state(file))

    def _notes(self, views: list[_View]) -> Iterator[str]:
        if self.why:
            yield f"read as: {self.why}"
        first, lacking = views[0].file.file, dict[str, str]()
        for view in views:
            for column in view.chosen.keys() - self.chosen.keys():
                lacking.setdefault(column, view.file.file)
        for column, file in sorted(lacking.items()):
            yield printable(f"column {column!r} is left out: {file} has it, the first file {first} does not")
        for column in NUMBERS:
            if odd := [(v.file.file, *v.file.misfits[column]) for v in views if column in v.file.misfits]:
                file, _, example = odd[0]
                what = "whole number from 0 and below 2^31" if COLUMNS[column] == "INTEGER" else "number"
                count = sum(n for _, n, _ in odd)
                said = f"{count:,} values of {column!r} are NULL, for they are no {what}"
                yield printable(f"{said} (such as {example!r} in {file})")
        others = {
            (c, self._told_from(c, view)): view.file.file
            for view in reversed(views)
            for c in NEEDED
            if self._told_from(c, view).lower() != self._told_from(c, views[0]).lower()
        }
        for (column, sql), file in sorted(others.items()):
            yield printable(f"{column} from {sql} in {file}")

    def _told_from(self, column: str, view: _View) -> str:
        """Return the column of a file that one of ours is taken from, or the SQL that makes it."""
        name = self.layout.source_of(column, view.file.columns)
        return quoted(name) if name else view.chosen[column]

    def _query(self, views: list[_View]) -> str:
        """Return SQL for the usable rows, as they stand in the files; columns that nobody asks for stay unread."""
        types = {c: self._type(c, views) for c in self.chosen}
        groups: dict[str, list[_View]] = {}
        for view in views:
            groups.setdefault(json.dumps(sorted(view.file.columns.items())), []).append(view)
        parts = [part for group in groups.values() for part in _selects(group, types)]
        made = {"key": self.layout.key}
        columns = ordered(self.columns)
        picked = ", ".join(
            f"{made.get(c) or (quoted(c) if c in self.chosen else f'NULL::{CORE[c]}')} AS {quoted(c)}"
            for c in columns
        )
        return f"SELECT {picked} FROM ({' UNION ALL '.join(parts)})"

    def _type(self, column: str, views: list[_View]) -> str:
        """Return the one type of a column: of one that the layout tells, as planned; of another, what holds all.

        Raises:
            DataError: files have it with types of which none holds the other.
        """
        if column in self.layout.columns:
            return self.columns[column]
        where: dict[str, str] = {}
        for view in views:
            where.setdefault(view.kinds.get(column, NULLS), view.file.file)
        where.pop(NULLS, None)
        first, *others = where or [self.columns[column]]
        kind = first
        for other in others:
            wider = _common(kind, other)
            if wider is None:
                raise DataError(
                    printable(f"{where[other]}: column {column!r} is {other}, and {first} in {where[first]}"),
                    hint="give it one type in all files, or take files apart and join them with `union`",
                )
            kind = wider
        return kind


def _known(file: str, layout: TableLayout, planned: Mapping[str, str], state: Sequence[str]) -> TableFile:
    """Return what is known of a file, from the cache where its state is that of the last time.

    Args:
        layout: how the file is laid out.
        planned: of JSON, columns of the table's first file and their types.
        state: what changes when the file does.

    Raises:
        RecipeError, DataError: it is no such table.
    """
    place = name_of(file, json.dumps([layout.name, layout.columns, layout.headers, planned]))
    kept = folder() / f"{place}.json"
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
        found = looked_at(file, layout, planned, folder() / place)
        record = {n: str(v) if n in _PATHS and v else v for n, v in asdict(found).items()}
        write_atomic(kept, json.dumps(record | {"state": wanted}).encode())
    except duckdb.Error as error:
        raise DataError(
            f"{file}: cannot be read ({first_line(error)})", hint="is it whole? fetch it again"
        ) from None
    except OSError as error:
        raise DataError(
            f"{file}: what is known of it cannot be kept ({error.strerror})",
            hint="set CURATE_CACHE to a folder with room",
        ) from error
    return found


_PATHS = ("parquet", "left_out")


@dataclass(frozen=True)
class _View:
    """A file as its layout has it: column → SQL over the file's, and column → type."""

    file: TableFile
    chosen: Mapping[str, str]
    kinds: Mapping[str, str]

    @classmethod
    def of(cls, layout: TableLayout, file: TableFile) -> _View:
        chosen = layout.select(file.columns, where=file.file)
        return cls(file, chosen, kinds_of(chosen, file.columns))


def _selects(views: list[_View], types: Mapping[str, str]) -> Iterator[str]:
    """Yield SQL for the usable rows of files with the same columns: one read for the clean ones, and one each."""
    told = ", ".join(
        f"{_cast(views[0].chosen.get(c), views[0].kinds.get(c, NULLS), kind)} AS {quoted(c)}"
        for c, kind in types.items()
    )
    if whole := [v.file.parquet for v in views if v.file.left_out is None]:
        yield f"SELECT {told} FROM {_read(whole)}"
    for file in (v.file for v in views):
        if file.left_out is not None:
            yield (
                f"SELECT {told} FROM {_read([file.parquet], numbered=True)} "
                f"WHERE file_row_number NOT IN (SELECT number FROM {_read([file.left_out])})"
            )


def _cast(sql: str | None, there: str, wanted: str) -> str:
    if sql is None or there == NULLS:
        return f"NULL::{wanted}"
    if there == wanted:
        return sql
    if wanted == "JSON":
        return f"to_json({sql})"
    if (there, wanted) == ("FLOAT", "DOUBLE"):  # by its digits, so that 0.29 is not below 0.29
        sql = f"{sql}::VARCHAR"
    return f"TRY_CAST({sql} AS {wanted})"


def _common(one: str, other: str) -> str | None:
    """Return the DuckDB type that holds the values of two; None where there is none."""
    if one == other or "JSON" in (one, other):
        return one if one in (other, "JSON") else None
    if NUMBER.fullmatch(one) and NUMBER.fullmatch(other):
        with duckdb.connect() as con:
            return columns_of(con, f"(SELECT NULL::{one} AS a UNION ALL SELECT NULL::{other})")["a"]
    return one if one == "VARCHAR" and re.fullmatch(r"[A-Z_ 0-9]+", other) and other != "BLOB" else None


def _read(paths: list[Path], *, numbered: bool = False) -> str:
    return parquet(*paths, union_by_name=True, file_row_number=numbered)


def _state(file: str) -> list[str]:
    if is_remote(file):
        return [RemotePath(file).state()]
    status = os.stat(file)
    return [str(n) for n in (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)]
