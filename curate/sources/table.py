"""A table of URLs and texts: rows whose bytes nobody has fetched yet."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from curate import layouts
from curate.errors import RecipeError
from curate.files import cache_folder
from curate.manifests import CORE, digest, ordered, parquet, quoted
from curate.places import Remote, find_files, is_remote
from curate.sources import Index, Progress, Source
from curate.sources._indexes import LeftOut, require_rows
from curate.sources._tables import ENDINGS, TableFile, columns_in, guessed, here, prepare

As = Literal[
    "auto", "laion", "cc3m", "cc12m", "yfcc15m", "redcaps", "wit", "shutterstock", "datacomp", "imagenet-captions",
    "sbu",
]  # fmt: skip


def table(*, path: str | list[str], as_: As = "auto") -> Source:
    """Take the rows of a table of URLs and texts; `curate fetch` brings their images.

    Parquet, CSV, TSV, JSON and JSON lines, plain or as `.gz` or `.zst`. Rows get `url`, `caption` and, where the table
    tells, `width`, `height`, `similarity`, `language`, `nsfw` and `sha256`; its other columns are carried along, their
    names in lower case. `key` is the MD5 of URL and text, so a row is the same row in every release. Rows without a
    URL of http or https, without a text, or that are not UTF-8 are left out and counted; of rows with the same URL and
    text one stays. The table is not copied: steps that look at each row alone (`filter`, `where`, `compute`,
    `clip_score`) and draws (`sample`, `mix`) read it as it lies; other steps get the rows in DuckDB.

    Args:
        path: a file, a folder of them, a pattern such as `/laion/part-*.parquet`, or a list of these; local or a
            URL. What lies elsewhere is copied to the cache once.
        as: how it is laid out, see docs/layouts.md; auto goes by the names of the columns, and the ledger says what
            it took.
    """
    return Table([path] if isinstance(path, str) else path, as_)


class Table(Source):
    """The source that `table` opens."""

    has_bytes = False

    def __init__(self, paths: list[str], name: str) -> None:
        self.files = sorted({f for path in paths for f in find_files(path, ENDINGS, "table")})
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
        self.layout = guess.layout if guess else layouts.find(name)
        self.why = guess.why if guess else None
        there = columns_in(path, self.layout, where)
        self.chosen = self.layout.select(there, where=where)
        self.columns = dict(CORE) | layouts.kinds(self.chosen, there)

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
        with ThreadPoolExecutor(min(len(self.files), os.cpu_count() or 1)) as pool:
            for known in pool.map(self._prepared, self.files):
                found.append(known)
                for reason, count in known.unusable.items():
                    left_out.add(reason, known.file, count)
                if progress:
                    progress(1, len(self.files))
        rows = sum(f.rows - sum(f.unusable.values()) for f in found)
        require_rows(rows, self.files[0], left_out, what="rows that can be used")
        content = digest(["table", self.layout.name, sorted(self.chosen.items()), [f.sha256 for f in found]])
        return Index(
            classes=(),
            digest=content,
            rows=rows,
            query=self._query(found),
            files=tuple(p for f in found for p in (f.parquet, f.left_out) if p),
            streamed=True,
            notes=(f"read as: {self.why}",) if self.why else (),
            left_out=left_out.names,
            counts=left_out.counts,
        )

    def _prepared(self, file: str) -> TableFile:
        return prepare(file, self.layout, self.chosen, _state(file))

    def _query(self, found: list[TableFile]) -> str:
        """Return SQL for the usable rows, as they stand in the files; columns that nobody asks for stay unread."""
        whole = [f for f in found if f.left_out is None]
        parts = [f"SELECT {self._told()} FROM {_read([f.parquet for f in whole])}"] if whole else []
        parts += [
            f"SELECT {self._told()} FROM {_read([f.parquet], numbered=True)} "
            f"WHERE file_row_number NOT IN (SELECT number FROM {_read([f.left_out])})"
            for f in found
            if f.left_out is not None
        ]
        made = {"key": self.layout.key}
        columns = ordered(self.columns)
        picked = ", ".join(
            f"{made.get(c) or (quoted(c) if c in self.chosen else f'NULL::{CORE[c]}')} AS {quoted(c)}"
            for c in columns
        )
        return f"SELECT {picked} FROM ({' UNION ALL '.join(parts)})"

    def _told(self) -> str:
        return ", ".join(f"{sql} AS {quoted(c)}" for c, sql in self.chosen.items())


def _read(paths: list[Path], *, numbered: bool = False) -> str:
    return parquet(*paths, union_by_name=True, file_row_number=numbered)


def _state(file: str) -> list[str]:
    if is_remote(file):
        return [Remote(file).state()]
    status = os.stat(file)
    return [str(status.st_size), str(status.st_mtime_ns)]
