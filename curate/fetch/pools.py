"""The pool that a fetch makes: a dataset whose rows point into the tars that were downloaded.

Beside what every dataset has it holds `request.parquet` (the rows that were asked for), `outcomes.parquet` (what
became of each), `fetch.json` (of which table it is, under which limits) and `fetched/` (img2dataset's tars, and what
is known of the shards that were taken over).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets.dataset import INFO, MANIFEST, OUTCOMES, Dataset, file_sha256
from curate.errors import RecipeError
from curate.fetch.limits import FetchLimits
from curate.fetch.shards import KINDS
from curate.io.files import is_unfinished, unfinished, write_atomic
from curate.io.web.outcomes import OK, lasting
from curate.io.working import WorkingFolder
from curate.rows.manifest import digest
from curate.rows.sql import parquet, plain, quoted, text

REQUEST = "request.parquet"
STATE = "fetch.json"
FETCHED = "fetched"
ASKED = "asked"  # below `fetched`: the dataset made of a table that was named
FATES = "fates"  # below `fetched`: a table of each shard that was taken over
VERSION = 1


@dataclass(frozen=True)
class Request:
    """Rows whose images are wanted, as a dataset of URLs has them.

    Args:
        dataset: of the rows, or one made of a table.
        limits: what to fetch under.
    """

    dataset: Dataset
    limits: FetchLimits

    @property
    def digest(self) -> str:
        """Names the rows and the limits: by it a finished pool is known to be the one that is asked for."""
        return digest([VERSION, self.dataset.digest, self.limits_digest])

    @property
    def limits_digest(self) -> str:
        """Names the limits; another user agent, such as that of a new version, is no other limit."""
        limits = {name: limit for name, limit in asdict(self.limits).items() if name != "user_agent"}
        return digest(limits)[:23]


class Pool:
    """The folder of a pool, finished or not.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fetched = path / FETCHED
        self.outcomes = self.fetched / FATES

    def state(self) -> dict[str, Any]:
        """Return `fetch.json`; empty where there is none."""
        try:
            return json.loads((self.path / STATE).read_text())
        except (OSError, ValueError):
            return {}

    def is_finished(self, request: Request) -> bool:
        """Whether all of a request was tried, and the dataset is what it was when it was finished."""
        try:
            info = json.loads((self.path / INFO).read_text())
            whole = info["manifest_sha256"] == file_sha256(self.path / MANIFEST)
        except (OSError, ValueError, KeyError):
            return False
        return whole and self.state().get("finished") == request.digest and (self.path / OUTCOMES).exists()

    def refuse_foreign(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            RecipeError: it does.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(f"{self.path}: is a file", hint="give --out a folder")
        entries = self.path.iterdir() if self.path.exists() else ()
        names = {entry.name for entry in entries if not is_unfinished(entry.name)}
        if names - {FETCHED, REQUEST} and STATE not in names:
            raise RecipeError(
                f"{self.path}: holds {min(names)!r} and is no pool; nothing was touched",
                hint="give --out a new folder",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that no second fetch writes into it.

        Raises:
            RecipeError: another does already, or the folder cannot be made.
        """
        busy = f"{self.path}: another fetch is writing it"
        working = WorkingFolder(self.fetched, busy=busy, keep=self.fetched.exists())
        try:
            with working:
                for entry in self.path.iterdir():
                    if is_unfinished(entry.name):  # of a fetch that was killed
                        entry.unlink()
                try:
                    yield
                finally:
                    working.keep = working.keep or (self.path / STATE).exists()
        finally:
            if not working.keep:  # it ended before anything was begun
                with suppress(OSError):
                    self.path.rmdir()

    def begin(self, request: Request) -> str | None:
        """Take up a request; return what changed since the last one, or None.

        Raises:
            RecipeError: the folder holds the pool of rows that have nothing to do with these.
        """
        state = self.state()
        changed = None
        if state and state["rows"] != request.dataset.digest:
            changed = self._difference(request.dataset)
        self.outcomes.mkdir(parents=True, exist_ok=True)
        if not state or state["rows"] != request.dataset.digest or not (self.path / REQUEST).exists():
            with unfinished(self.path / REQUEST) as beside:
                shutil.copyfile(str(request.dataset.manifest), beside)
        self.write_state(request, None)
        return changed

    def _difference(self, dataset: Dataset) -> str:
        mine, other = (f"(SELECT key FROM {parquet(p)})" for p in (self.path / REQUEST, dataset.manifest))
        with duckdb.connect() as con:
            [(both, gone, new)] = con.execute(
                f"SELECT count(*) FILTER (a.key = b.key), count(*) FILTER (b.key IS NULL), "
                f"count(*) FILTER (a.key IS NULL) FROM {mine} a FULL JOIN {other} b USING (key)"
            ).fetchall()
        if not both:
            raise RecipeError(
                f"{self.path}: holds the pool of {gone:,} other rows; nothing was touched",
                hint="give --out a new folder",
            )
        return f"the table changed: {both:,} rows are as before, {new:,} are new, {gone:,} are gone"

    def write_state(self, request: Request, finished: str | None) -> None:
        """Write `fetch.json`.

        Args:
            finished: the digest of the request of which every row has an outcome; None while it is under way.
        """
        state = {
            "version": VERSION,
            "name": request.dataset.name,
            "rows": request.dataset.digest,
            "guards": asdict(request.limits),
            "finished": finished,
        }
        write_atomic(self.path / STATE, (json.dumps(state, indent=1) + "\n").encode())

    def connect(self) -> Any:
        """Open DuckDB with `request` (the rows), `known` (all fates) and `fates` (of each URL the one that counts)."""
        con = duckdb.connect()
        con.execute(f"SET temp_directory = {text(str(self.fetched / 'spill'))}")
        request = parquet(self.path / REQUEST, file_row_number=True)
        con.execute(f"CREATE TEMP VIEW request AS FROM {request}")
        con.execute(f"CREATE TEMP VIEW known AS {self._known(con)}")
        # What was fetched stays fetched: a URL that is ok is not tried again under other limits.
        con.execute(
            "CREATE TEMP VIEW fates AS FROM known "
            f"QUALIFY row_number() OVER (PARTITION BY url ORDER BY outcome = {text(OK)} DESC, round DESC, row) = 1"
        )
        return con

    def _known(self, con: Any) -> str:
        """Return SQL of all fates. Those that name no URL, as in older pools, have it from the row that they are of."""
        if not any(self.outcomes.glob("*.parquet")):
            empty = ", ".join(f"NULL::{kind} AS {quoted(c)}" for c, kind in KINDS.items())
            return f"SELECT {empty}, NULL::INTEGER AS round WHERE false"
        pattern = f"{plain(self.outcomes)}/*.parquet"
        files = parquet(pattern, literal=False, filename=True, union_by_name=True)
        number = "split_part(parse_filename(filename), '-', 1)::INTEGER AS round"
        [(all_files, with_url)] = con.execute(
            "SELECT count(DISTINCT file_name), count(DISTINCT file_name) FILTER (name = 'url') "
            f"FROM parquet_schema({text(pattern)})"
        ).fetchall()
        if with_url == all_files:
            return f"SELECT * EXCLUDE (filename), {number} FROM {files}"
        url = "coalesce(k.url, r.url)" if with_url else "r.url"
        columns = ", ".join(f"k.{quoted(c)}" for c in KINDS if c != "url")
        joined = f"{files} k LEFT JOIN request r ON k.row = r.key WHERE {url} IS NOT NULL"
        return f"SELECT {columns}, {url} AS url, {number} FROM {joined}"

    def write_todo(self, request: Request, path: Path, *, retry: bool, since: int) -> int:
        """Write row (its key), url and caption of the rows to try, in the order of the request; return how many.

        A URL is tried once, for the first row that has it; the others share what becomes of it.

        Args:
            retry: also those whose failure may have passed.
            since: the first pass of this call; what failed in it or later is not tried again.
        """
        with self.connect() as con:
            failed = con.execute("SELECT DISTINCT outcome FROM known WHERE outcome <> 'ok'").fetchall()
            again = [o for (o,) in failed if not lasting(o)] if retry else []
            tried = f"(SELECT url FROM known WHERE guards = {text(request.limits_digest)})"
            passing = f"f.outcome IN ({', '.join(map(text, again))})" if again else "false"
            con.execute(
                "COPY (SELECT arg_min(r.key, r.file_row_number) AS row, r.url, "
                "arg_min(r.caption, r.file_row_number) AS caption "
                "FROM request r LEFT JOIN fates f ON r.url = f.url "
                f"WHERE f.url IS NULL OR (f.outcome <> 'ok' AND f.round < {since} AND (f.url NOT IN {tried} "
                f"OR {passing})) GROUP BY r.url ORDER BY min(r.file_row_number)) TO {text(str(path))} (FORMAT parquet)"
            )
            return con.execute(f"SELECT count(*) FROM {parquet(path)}").fetchall()[0][0]

    def next_pass(self) -> int:
        """Return the number of a pass that nothing is known of yet."""
        numbers = [int(f.name) for f in self.fetched.glob("[0-9]*") if f.name.isdigit()]
        numbers += [int(f.name.partition("-")[0]) for f in self.outcomes.glob("*.parquet")]
        return max(numbers, default=-1) + 1

    def pass_folder(self, number: int) -> Path:
        """Return the folder of a pass."""
        return self.fetched / f"{number:04d}"
