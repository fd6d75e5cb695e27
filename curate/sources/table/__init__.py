"""A table of URLs and texts: rows whose images are not fetched yet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from curate.errors import DataError, RecipeError, printable
from curate.io.executors import cores
from curate.io.files import cache_folder
from curate.io.paths import find_files
from curate.io.stores import is_remote
from curate.rows.manifest import CORE, digest, ordered
from curate.rows.readers.encodings import is_json
from curate.rows.sql import quoted
from curate.sources import Index, Progress, Source
from curate.sources._index_cache import LeftOut, require_rows
from curate.sources.table.files import (
    ENDINGS,
    HIDDEN,
    VERSION,
    TableFile,
    columns_in,
    guess_layout,
    known_file,
    local_file,
    state_of,
)
from curate.sources.table.layouts.guessing import find
from curate.sources.table.layouts.layout import COLUMNS, NEEDED
from curate.sources.table.layouts.layout import kinds as kinds_of
from curate.sources.table.usable import NULLS, NUMBERS
from curate.sources.table.views import FileView, common_type, selects

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
        path, where = local_file(self.files[0]), self.files[0]
        guess = guess_layout(path, where) if name == "auto" else None
        self.layout = guess.layout if guess else find(name)
        self.why = guess.why if guess else None
        columns = columns_in(path, self.layout, where)
        texts = self.layout.source_of("caption", columns)
        # A caption may be one text in one file and a list in the next.
        self.planned = {c: kind for c, kind in columns.items() if c != texts} if is_json(path) else {}
        self.chosen = self.layout.select(columns, where=where)
        kinds = kinds_of(self.chosen, columns)
        self.columns = dict(CORE) | {c: "INTEGER" if kind == NULLS else kind for c, kind in kinds.items()}

    @property
    def homes(self) -> list[str]:
        """The files; a build may stand beside them."""
        return self.files

    def fingerprint(self) -> str:
        """Return the digest of name, size and time of each file; of a remote file, of what its store says."""
        return digest([self.layout.name, [[f, *state_of(f)] for f in self.files]])

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Hash the files and find their unusable rows; a file that did not change is not read again."""
        left_out = LeftOut()
        files: list[TableFile] = []
        with ThreadPoolExecutor(min(len(self.files), cores())) as pool:
            for known in pool.map(self._prepared, self.files):
                files.append(known)
                for reason, count in known.unusable.items():
                    left_out.add(reason, known.file, count)
                if progress:
                    progress(1, len(self.files))
        rows = sum(f.rows - sum(f.unusable.values()) for f in files)
        require_rows(rows, self.files[0], left_out, what="rows that can be used")
        views = [FileView.of(self.layout, f) for f in files]
        # A newer reader of text files may read the same bytes otherwise.
        reader = [] if all(f.lower().endswith(".parquet") for f in self.files) else [VERSION]
        content = digest(
            ["table", self.layout.name, sorted(self.chosen.items()), [f.sha256 for f in files], *reader]
        )
        return Index(
            classes=(),
            digest=content,
            rows=rows,
            query=self._query(views),
            files=tuple(p for f in files for p in (f.parquet, f.left_out) if p),
            streamed=True,
            notes=tuple(self._notes(views)),
            left_out=left_out.names,
            counts=left_out.counts,
        )

    def _prepared(self, file: str) -> TableFile:
        return known_file(file, self.layout, self.planned, state_of(file))

    def _notes(self, views: list[FileView]) -> Iterator[str]:
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
                note = f"{count:,} values of {column!r} are NULL, for they are no {what}"
                yield printable(f"{note} (such as {example!r} in {file})")
        others = {
            (c, self._origin(c, view)): view.file.file
            for view in reversed(views)
            for c in NEEDED
            if self._origin(c, view).lower() != self._origin(c, views[0]).lower()
        }
        for (column, sql), file in sorted(others.items()):
            yield printable(f"{column} from {sql} in {file}")

    def _origin(self, column: str, view: FileView) -> str:
        """Return the file's column that a column of ours is taken from, or the SQL that makes it."""
        name = self.layout.source_of(column, view.file.columns)
        return quoted(name) if name else view.chosen[column]

    def _query(self, views: list[FileView]) -> str:
        """Return SQL for the usable rows in the order of the files; DuckDB reads only the columns that a step uses."""
        types = {c: self._type(c, views) for c in self.chosen}
        groups: dict[str, list[FileView]] = {}
        for view in views:
            groups.setdefault(json.dumps(sorted(view.file.columns.items())), []).append(view)
        parts = [part for group in groups.values() for part in selects(group, types)]
        made = {"key": self.layout.key}
        columns = ordered(self.columns)
        picked = ", ".join(
            f"{made.get(c) or (quoted(c) if c in self.chosen else f'NULL::{CORE[c]}')} AS {quoted(c)}"
            for c in columns
        )
        return f"SELECT {picked} FROM ({' UNION ALL '.join(parts)})"

    def _type(self, column: str, views: list[FileView]) -> str:
        """Return the type of a column: as planned if the layout names it, else one that holds the values of all files.

        Raises:
            DataError: no type holds the values of two files.
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
            wider = common_type(kind, other)
            if wider is None:
                raise DataError(
                    printable(f"{where[other]}: column {column!r} is {other}, and {first} in {where[first]}"),
                    hint="give it one type in all files, or take files apart and join them with `union`",
                )
            kind = wider
        return kind
