"""The pool that a fetch makes: a dataset whose rows point into the tars that were downloaded.

Beside what every dataset has it holds `request.parquet` (the rows that were asked for), `outcomes.parquet` (what
became of each), `fetch.json` (of which table it is, under which limits) and `fetched/` (img2dataset's tars, and what
is known of the shards that were taken over).
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets import BUILD, CARD, INFO, MANIFEST, Dataset, DatasetInfo, StepRecord, file_sha256, render
from curate.errors import RecipeError
from curate.exports.huggingface import described
from curate.fetch.guards import Guards
from curate.fetch.outcomes import OK, lasting
from curate.fetch.shards import KINDS, Fate
from curate.files import sync_file, write_atomic
from curate.manifests import CORE, content_digest, digest, ordered, plain, quoted, rows_digest, text
from curate.rows import columns_of
from curate.stagings import locked

REQUEST = "request.parquet"
OUTCOMES = "outcomes.parquet"
STATE = "fetch.json"
FETCHED = "fetched"
ASKED = "asked"  # below `fetched`: the dataset made of a table that was named
FATES = "fates"  # below `fetched`: a table of each shard that was taken over
VERSION = 1
PLACED = ("file", "offset", "size", "ext", "width", "height", "sha256")  # what the bytes say, not the table


@dataclass(frozen=True)
class Request:
    """Rows whose images are wanted, as a dataset of URLs has them.

    Args:
        dataset: of the rows, or one made of a table.
        guards: the limits to fetch under.
    """

    dataset: Dataset
    guards: Guards

    @property
    def digest(self) -> str:
        """Names the rows and the limits: by it a finished pool is known to be the one that is asked for."""
        return digest([VERSION, self.dataset.digest, self.limits])

    @property
    def limits(self) -> str:
        """Names the limits."""
        return digest(asdict(self.guards))[:23]


class Pool:
    """The folder of a pool, finished or not.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fetched = path / FETCHED
        self.fates = self.fetched / FATES

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
        names = {entry.name for entry in self.path.iterdir()} if self.path.exists() else set()
        if names - {FETCHED} and STATE not in names:
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
        try:
            self.fetched.mkdir(parents=True, exist_ok=True)
            lock = locked(self.fetched / "lock", self.path, "fetch")
        except OSError as error:
            raise RecipeError(
                f"{self.path}: cannot be written ({error.strerror})", hint="choose another --out"
            ) from error
        with lock:
            try:
                yield
            finally:
                if not (self.path / STATE).exists():  # it ended before anything was begun
                    shutil.rmtree(self.fetched, ignore_errors=True)
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
            changed = self._compared(request.dataset)
        self.fates.mkdir(parents=True, exist_ok=True)
        if not state or state["rows"] != request.dataset.digest or not (self.path / REQUEST).exists():
            beside = self.path / f".{REQUEST}.tmp"
            beside.write_bytes((request.dataset.path / MANIFEST).read_bytes())
            sync_file(beside)
            os.replace(beside, self.path / REQUEST)
        self._write_state(request, None)
        return changed

    def _compared(self, dataset: Dataset) -> str:
        mine, other = (
            f"(SELECT key FROM read_parquet({text(plain(p))}))"
            for p in (self.path / REQUEST, dataset.path / MANIFEST)
        )
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

    def _write_state(self, request: Request, finished: str | None) -> None:
        told = {
            "version": VERSION,
            "name": request.dataset.name,
            "rows": request.dataset.digest,
            "guards": asdict(request.guards),
            "finished": finished,
        }
        write_atomic(self.path / STATE, (json.dumps(told, indent=1) + "\n").encode())

    def connect(self) -> Any:
        """Open DuckDB with `request` (the rows), `known` (all fates) and `fates` (of each row the one that counts)."""
        con = duckdb.connect()
        con.execute(f"SET temp_directory = {text(str(self.fetched / 'spill'))}")
        request = f"read_parquet({text(plain(self.path / REQUEST))}, file_row_number = true)"
        con.execute(f"CREATE TEMP VIEW request AS FROM {request}")
        if any(self.fates.glob("*.parquet")):
            files = text(f"{plain(self.fates)}/*.parquet")
            number = "parse_filename(filename)[:4]::INTEGER AS round"
            known = f"SELECT * EXCLUDE (filename), {number} FROM read_parquet({files}, filename = true)"
        else:
            empty = ", ".join(f"NULL::{kind} AS {quoted(c)}" for c, kind in KINDS.items())
            known = f"SELECT {empty}, NULL::INTEGER AS round WHERE false"
        con.execute(f"CREATE TEMP VIEW known AS {known}")
        # What was fetched stays fetched: a row that is ok is not tried again under other limits.
        con.execute(
            "CREATE TEMP VIEW fates AS FROM known "
            f"QUALIFY row_number() OVER (PARTITION BY row ORDER BY outcome = {text(OK)} DESC, round DESC) = 1"
        )
        return con

    def write_todo(self, request: Request, path: Path, *, retry: bool, since: int) -> int:
        """Write row (its key), url and caption of the rows to try, in the order of the request; return how many.

        Args:
            retry: also those whose failure may have passed.
            since: the first round of this call; what failed in it or later is not tried again.
        """
        with self.connect() as con:
            failed = con.execute("SELECT DISTINCT outcome FROM known WHERE outcome <> 'ok'").fetchall()
            again = [o for (o,) in failed if not lasting(o)] if retry else []
            passing = f"outcome IN ({', '.join(map(text, again))})" if again else "false"
            con.execute(
                f"COPY (SELECT key AS row, url, caption FROM request LEFT JOIN fates ON key = row WHERE row IS NULL "
                f"OR (outcome <> 'ok' AND round < {since} AND (guards IS DISTINCT FROM {text(request.limits)} "
                f"OR {passing})) ORDER BY file_row_number) TO {text(str(path))} (FORMAT parquet)"
            )
            return con.execute(f"SELECT count(*) FROM read_parquet({text(plain(path))})").fetchall()[0][0]

    def next_round(self) -> int:
        """Return the number of a round that nothing is known of yet."""
        numbers = [int(f.name) for f in self.fetched.glob("[0-9]*") if f.name.isdigit()]
        numbers += [int(f.name.partition("-")[0]) for f in self.fates.glob("*.parquet")]
        return max(numbers, default=-1) + 1

    def round(self, number: int) -> Path:
        """Return the folder of a round."""
        return self.fetched / f"{number:04d}"

    def publish(self, request: Request, record: Mapping[str, Any]) -> Dataset:
        """Make the dataset of what was fetched; `dataset.json` is written last."""
        (self.path / INFO).unlink(missing_ok=True)
        with self.connect() as con:
            _limit(con, request.guards)
            columns = self._write_rows(con)
            written = f"read_parquet({text(plain(self.path / MANIFEST))}, file_row_number = true)"
            content = content_digest(
                rows_digest(con, written, "file_row_number", ordered(columns)), request.dataset.classes
            )
            [(rows, size)] = con.execute(
                f"SELECT count(*), coalesce(sum(size), 0)::BIGINT FROM {written}"
            ).fetchall()
            reasons = dict(con.execute(
                "SELECT outcome, count(*) AS n FROM outcomes WHERE outcome <> 'ok' GROUP BY 1 ORDER BY n DESC, 1"
            ).fetchall())  # fmt: skip
        info = self._described(request, rows, size, columns, content, reasons)
        machine = {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        }
        told = {"built": datetime.now(timezone.utc).isoformat(timespec="seconds"), **record, "machine": machine,
                "versions": {n: version(n) for n in ("duckdb", "pyarrow", "img2dataset")}}  # fmt: skip
        write_atomic(self.path / BUILD, (json.dumps(told, indent=1) + "\n").encode())
        write_atomic(self.path / CARD, described(info, self.path / MANIFEST).encode())
        self._write_state(request, request.digest)
        write_atomic(self.path / INFO, render(info))
        return Dataset(self.path, info)

    def _write_rows(self, con: Any) -> dict[str, str]:
        """Write `outcomes.parquet` and `manifest.parquet`; return the manifest's columns and their types."""
        told = "sha256" in columns_of(con, "request")
        expected = "request.sha256" if told else "NULL"
        wrong = f"f.outcome = 'ok' AND lower({expected}) <> f.sha256"
        con.execute(
            "CREATE TEMP TABLE outcomes AS SELECT key, url, "
            f"CASE WHEN {wrong} THEN 'hash mismatch' ELSE f.outcome END AS outcome, "
            f"CASE WHEN {wrong} THEN f.sha256 ELSE detail END AS detail, "
            "f.* EXCLUDE (row, outcome, detail, guards), file_row_number AS number "
            "FROM request JOIN limited f ON key = row"
        )
        _copy(
            con,
            'SELECT * EXCLUDE (number, file, "offset") FROM outcomes ORDER BY number',
            self.path / OUTCOMES,
        )
        there = columns_of(con, "request")
        del there["file_row_number"]
        kinds = {c: CORE.get(c, there.get(c, "VARCHAR")) for c in ordered({*there, *PLACED})}
        chosen = ", ".join(
            f"{'o' if c in PLACED else 'r'}.{quoted(c)}::{kind} AS {quoted(c)}" for c, kind in kinds.items()
        )
        rows = (
            f"SELECT {chosen} FROM request r JOIN outcomes o ON r.key = o.key "
            "WHERE o.outcome = 'ok' ORDER BY o.number"
        )
        _copy(con, rows, self.path / MANIFEST)
        return kinds

    def _described(
        self,
        request: Request,
        rows: int,
        size: int,
        columns: dict[str, str],
        content: str,
        reasons: dict[str, int],
    ) -> DatasetInfo:
        asked = request.dataset.info
        count = len(asked.classes)
        step = StepRecord(
            step="fetch", rows_in=asked.rows, rows_out=rows, classes_in=count, classes_out=count, refused=reasons,
            columns_added=[c for c in columns if c not in asked.columns],
        )  # fmt: skip
        limits = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(request.guards).items()}
        name = f"{asked.name}-pool"[:100]
        return DatasetInfo(
            name=name,
            digest=content,
            plan=request.digest,
            rows=rows,
            bytes=size,
            root=".",
            columns=columns,
            classes=asked.classes,
            recipe={"name": name, "source": {"fetch": limits}, "of": asked.recipe},
            source={"digest": asked.digest, "left_out": reasons},
            ledger=[*asked.ledger, step],
            manifest_sha256=file_sha256(self.path / MANIFEST),
        )


def _limit(con: Any, guards: Guards) -> None:
    """Make the view `limited`: what was fetched under wider limits, and is over the present ones, is no longer ok."""
    con.execute(
        "CREATE TEMP VIEW limited AS SELECT * REPLACE (CASE "
        f"WHEN outcome = 'ok' AND size::BIGINT > {guards.max_bytes} THEN 'too large' "
        f"WHEN outcome = 'ok' AND width::BIGINT * height::BIGINT > {guards.max_pixels} THEN 'too many pixels' "
        "ELSE outcome END AS outcome) FROM fates"
    )


def _copy(con: Any, query: str, path: Path) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    con.execute(f"COPY ({query}) TO {text(str(beside))} (FORMAT parquet, COMPRESSION zstd)")
    sync_file(beside)
    os.replace(beside, path)


__all__ = ["Fate", "Pool", "Request"]
