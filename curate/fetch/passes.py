"""Passes of downloading: a run of img2dataset over the rows that are left, and what it finished taken over.

A pass may end early, by a kill, a hang or a fault of img2dataset; the shards that were finished are kept, and the next
pass has the rest. A row whose shard was under way when nothing moved any more is given up the second time.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import duckdb

from curate.errors import DataError, MissingError
from curate.fetch.limits import FetchLimits
from curate.fetch.pools import Pool, Request
from curate.fetch.shards import RowOutcome, finished, read_shard, started, write_outcomes
from curate.fetch.workers.supervisor import command, supervise
from curate.io.files import write_atomic
from curate.io.progress import Quiet
from curate.rows.sql import parquet, plain

DISTRIBUTORS = ("multiprocessing", "pyspark", "ray")
MAX_EMPTY_PASSES = 2  # in a row without a finished shard, and the fetch is given up
MISSES = 2  # passes in which a row had its turn and no outcome, and the row is given up
SHARDS_A_PROCESS = 4  # at least, so that none is long alone at work, and a kill costs little
ENDING_S = 1.5  # within which processes are gone whose parent was killed
LOG_LINES = 12  # of img2dataset's output, shown when it fails

TODO = "todo"  # Parquet without its ending, by which img2dataset would take it for a shard of its own


@dataclass(frozen=True)
class FetchOptions:
    """How img2dataset goes about it; this changes the time and nothing else.

    Args:
        distributor: of img2dataset's: processes here, Spark, or Ray.
        processes: how many shards are downloaded at once.
        threads: transfers at once in each.
        samples_per_shard: at most.
        stall_s: how long no transfer may end before all are taken for hung; None: by the limits.
    """

    distributor: str = "multiprocessing"
    processes: int = 2
    threads: int = 64
    samples_per_shard: int = 10_000
    stall_s: float | None = None

    def patience_s(self, limits: FetchLimits) -> float:
        """Return how long a row may take that is tried as often as the guards allow, and a minute."""
        if self.stall_s is not None:
            return self.stall_s
        return (limits.retries + 1) * (limits.deadline_s + limits.max_wait_s + limits.interval_s) + 60

    def shard_size(self, rows: int) -> int:
        """Return how many rows go into a shard: fewer where there are few."""
        return max(1, min(self.samples_per_shard, -(-rows // (self.processes * SHARDS_A_PROCESS))))


def require(distributor: str) -> None:
    """Refuse to start without the packages.

    Raises:
        MissingError: img2dataset or what the distributor needs is not installed.
    """
    if importlib.util.find_spec("img2dataset") is None:
        raise MissingError("img2dataset is not installed", hint="pip install 'curate-train[fetch]'")
    if distributor != "multiprocessing" and importlib.util.find_spec(distributor) is None:
        raise MissingError(f"{distributor} is not installed", hint=f"pip install {distributor}")


def tidy(pool: Pool) -> None:
    """Take over what an earlier call finished and did not take over, and clear what it left half done."""
    folders = sorted(f for f in pool.fetched.glob("[0-9]*") if f.is_dir())
    if any((f / "job").exists() for f in folders):
        time.sleep(ENDING_S)
    for folder in folders:
        Pass(pool, folder).end()


class Pass:
    """A run of img2dataset in a folder of its own, whose shards are taken over as they are finished.

    Args:
        pool: the pool that gets them.
        folder: img2dataset's.
    """

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.folder = pool, folder
        self._looked: set[str] = set()

    def outcomes_file(self, name: str) -> Path:
        """Return the file for what became of the rows of a shard."""
        return self.pool.outcomes / f"{self.folder.name}-{name}.parquet"

    @property
    def taken(self) -> list[str]:
        """The shards that were taken over."""
        return [f.stem.partition("-")[2] for f in self.pool.outcomes.glob(f"{self.folder.name}-*.parquet")]

    def take_over(self, *, at_last: bool = True) -> None:
        """Record what became of the rows of the shards that are finished; those that are not whole are left.

        Args:
            at_last: look also at shards that were looked at before; img2dataset may just have been writing them.
        """
        before = set(self.taken) | (set() if at_last else self._looked)
        new = [name for name in finished(self.folder) if name not in before]
        job = self.folder / "job"
        limits_digest = json.loads(job.read_text())["limits"] if new and job.exists() else ""
        for name in new:
            self._looked.add(name)
            with suppress(DataError):  # its rows are tried again
                outcomes = read_shard(self.folder, name, pool=self.pool.path, limits_digest=limits_digest)
                write_outcomes(outcomes, self.outcomes_file(name))

    def unanswered(self, shards: Sequence[str] | None, size: int) -> list[tuple[str, str]]:
        """Return key and URL of the rows that have no outcome from this pass.

        Args:
            shards: only of these.
            size: rows of a shard.
        """
        conditions = []
        if shards is not None:
            numbers = [int(name) for name in shards]
            conditions.append(f"list_contains({numbers}::BIGINT[], file_row_number // {size})")
        if self.taken:
            known = parquet(f"{plain(self.pool.outcomes)}/{self.folder.name}-*.parquet", literal=False)
            conditions.append(f"row NOT IN (SELECT row FROM {known})")
        rows = f"SELECT row, url FROM {parquet(self.folder / TODO, file_row_number=True)}"
        with duckdb.connect() as con:
            return con.execute(f"{rows} WHERE {' AND '.join(conditions) or 'true'}").fetchall()

    def end(self) -> None:
        """Take over what is finished, and clear the folder of all but the tars that were taken over."""
        self.take_over()
        tars = {f"{name}.tar" for name in self.taken}
        job_last = sorted(self.folder.iterdir(), key=lambda e: e.name == "job")  # it tells the limits
        for entry in job_last:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name not in tars:
                entry.unlink()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def download(pool: Pool, request: Request, options: FetchOptions, progress: Quiet, *, retry: bool) -> int:
    """Download in passes until each row of a request has an outcome; return how many URLs were tried.

    Args:
        retry: also rows whose failure may have passed.

    Raises:
        DataError: img2dataset fails again and again.
    """
    since = pool.next_pass()
    tried, empty, missed = 0, 0, Counter[tuple[str, str]]()
    while True:
        folder = pool.pass_folder(pool.next_pass())
        folder.mkdir()
        left = pool.write_todo(request, folder / TODO, retry=retry, since=since)
        tried = max(tried, left)
        if not left:
            shutil.rmtree(folder)
            return tried
        size = options.shard_size(left) if not missed else max(1, options.shard_size(left) // 10)
        current = Pass(pool, folder)
        look = partial(current.take_over, at_last=False)
        fault = run(
            folder,
            left,
            request.limits,
            options,
            size,
            progress,
            limits_digest=request.limits_digest,
            look=look,
        )
        current.take_over()
        # Without a fault it has reported all shards: what it has not told of by now, it will not.
        turns = current.unanswered(started(folder), size) if fault == "hung" else []
        turns = current.unanswered(None, size) if fault is None else turns
        empty = 0 if current.taken else empty + 1
        if empty >= MAX_EMPTY_PASSES and not (fault == "hung" and turns):
            log = tail(folder / "log.txt")
            current.end()
            raise DataError(
                f"{pool.path}: img2dataset ended twice without a shard ({fault or 'exit code 0'}):\n{log}",
                hint="the same command goes on from here",
            )
        if fault == "hung":
            waited = f"{options.patience_s(request.limits):,.0f} s"
            progress.say(f"nothing moved for {waited}: img2dataset was ended, and starts anew")
        missed.update(turns)
        if given_up := [row for row in turns if missed[row] >= MISSES]:
            reason = "hung" if fault == "hung" else "no record"
            outcomes = [
                RowOutcome(key, reason, guards=request.limits_digest, url=url) for key, url in given_up
            ]
            write_outcomes(outcomes, current.outcomes_file("given-up"))
        current.end()


def run(
    folder: Path,
    rows: int,
    limits: FetchLimits,
    options: FetchOptions,
    samples_per_shard: int,
    progress: Quiet,
    *,
    limits_digest: str,
    hashes_only: bool = False,
    look: Callable[[], None] = lambda: None,
) -> str | None:
    """Run img2dataset once over the rows of the file `todo` in a folder; return what went wrong, or None.

    Args:
        folder: for what it writes.
        rows: how many there are.
        hashes_only: keep the sha256 of the bytes in their place.
        look: called now and then meanwhile.
    """
    beats = folder / "beats"
    beats.mkdir()
    job = {
        "table": str(folder.resolve() / TODO),
        "out": str(folder.resolve()),
        "beats": str(beats.resolve()),
        "guards": asdict(limits),
        "limits": limits_digest,
        "processes": options.processes,
        "threads": options.threads,
        "samples_per_shard": samples_per_shard,
        "distributor": options.distributor,
        "hashes_only": hashes_only,
    }
    write_atomic(folder / "job", json.dumps(job).encode())
    return supervise(
        command(folder / "job"), beats=beats, log=folder / "log.txt", stall_s=options.patience_s(limits),
        total=rows, progress=progress, look=look,
    )  # fmt: skip


def tail(log: Path) -> str:
    """Return the last lines of what img2dataset printed."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(f"  {line}" for line in lines[-LOG_LINES:])
