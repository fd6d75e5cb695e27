"""Drift: what the URLs of a pool give today, beside what they gave when it was made."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets.dataset import open_dataset
from curate.datasets.staging import disk_errors
from curate.errors import DataError, RecipeError
from curate.fetch.limits import FetchLimits
from curate.fetch.passes import MISSES, TODO, FetchOptions, require, run, tail
from curate.fetch.pools import FATES, FETCHED, STATE, Pool
from curate.fetch.shards import finished, read_shard, write_outcomes
from curate.io.progress import Quiet
from curate.io.web.outcomes import lasting
from curate.rows.chance import chance_sql
from curate.rows.sql import copy_parquet, parquet, plain, text

DRIFT = "drift"  # below a pool: what later looks found, a file each
SAME, CHANGED, GONE, UNKNOWN = "same", "changed", "gone", "unknown"
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Drift:
    """What became of a pool's URLs.

    Args:
        pool: its folder.
        rows: of the pool.
        asked: how many rows were asked again.
        urls: how many URLs these have: each is asked once, for all of its rows.
        states: same (the bytes), changed, gone (a failure that lasts), unknown (one that may pass) → rows.
        reasons: why rows are gone or unknown → rows.
        table: a Parquet file with key, url, state, reason, and the sha256 then and now of each row asked.
        seconds: wall time.
    """

    pool: Path
    rows: int
    asked: int
    urls: int
    states: dict[str, int]
    reasons: dict[str, int]
    table: Path
    seconds: float

    def interval(self, state: str) -> tuple[float, float]:
        """Return a 95 % interval for the share of a state in the whole pool (Wilson's; exact where all were asked).

        Rows of one URL count as one draw, for they have one state: five captions of an image tell no more than one.
        """
        share, n = self.states.get(state, 0) / self.asked, self.urls
        if self.asked == self.rows:
            return share, share
        middle, spread = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        scale = 1 + Z**2 / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def again(
    pool: str | Path,
    *,
    number: int | None = None,
    limits: FetchLimits | None = None,
    options: FetchOptions | None = None,
    progress: Quiet | None = None,
) -> Drift:
    """Ask the URLs of a pool again and compare the bytes by their sha256; the pool stays as it is.

    Args:
        pool: a pool that `fetch` made.
        number: ask so many rows, drawn by chance; all by default. Smaller draws are inside larger ones.

    Raises:
        RecipeError: there is no pool.
        DataError: img2dataset fails.
    """
    began = time.monotonic()
    limits, options, progress = limits or FetchLimits(), options or FetchOptions(), progress or Quiet()
    require(options.distributor)
    path = Path(pool)
    dataset = open_dataset(path)
    if not (path / STATE).exists():
        raise RecipeError(f"{path}: a dataset, but no pool", hint="`curate fetch TABLE --out POOL` makes one")
    if not len(dataset):
        raise DataError(f"{path}: the pool has no rows", hint="its failures are in outcomes.parquet")
    with disk_errors(path), Pool(path).locked():
        work = path / FETCHED / "again"
        shutil.rmtree(work, ignore_errors=True)
        (work / FATES).mkdir(parents=True)
        with duckdb.connect() as con:
            con.execute(f"SET temp_directory = {text(str(work / 'spill'))}")
            _draw(con, path, number or len(dataset))
            _ask(con, work, limits, options, progress)
            table = _write(con, work, path / DRIFT)
            [(urls,)] = con.execute("SELECT count(DISTINCT url) FROM asked").fetchall()
            counts = con.execute(
                f"SELECT state, reason, count(*) FROM {parquet(table)} GROUP BY ALL"
            ).fetchall()
        shutil.rmtree(work, ignore_errors=True)
    states, reasons = Counter[str](), Counter[str]()
    for state, reason, count in counts:
        states[state] += count
        if reason is not None:
            reasons[reason] += count
    return Drift(
        path, len(dataset), states.total(), urls, {s: states[s] for s in (SAME, CHANGED, GONE, UNKNOWN)},
        dict(reasons.most_common()), table, time.monotonic() - began,
    )  # fmt: skip


def _draw(con: Any, path: Path, number: int) -> None:
    """Make the table `asked`: so many rows of a pool, by chance."""
    rows = parquet(open_dataset(path).manifest)
    con.execute(
        f"CREATE TEMP TABLE asked AS SELECT key, url, sha256 FROM {rows} "
        f"ORDER BY {chance_sql(0, 'again')}, key LIMIT {number}"
    )


def _ask(con: Any, work: Path, limits: FetchLimits, options: FetchOptions, progress: Quiet) -> None:
    """Fetch the hashes of the URLs asked, into the table `fates`; a URL that has none then is of no record."""
    con.execute("CREATE TEMP TABLE fates (url VARCHAR, outcome VARCHAR, sha256 VARCHAR)")
    for number in range(MISSES):
        folder = work / str(number)
        folder.mkdir()
        con.execute(
            "COPY (SELECT min(key) AS row, url, '' AS caption FROM asked "
            "WHERE url NOT IN (SELECT url FROM fates) GROUP BY url ORDER BY hash(url)) "
            f"TO {text(str(folder / TODO))} (FORMAT parquet)"
        )
        [(left,)] = con.execute(f"SELECT count(*) FROM {parquet(folder / TODO)}").fetchall()
        if not left:
            break
        size = options.shard_size(left)
        fault = run(folder, left, limits, options, size, progress, limits_digest="", hashes_only=True)
        for name in finished(folder):
            with suppress(DataError):  # its rows are asked once more
                outcomes = read_shard(folder, name, pool=work, limits_digest="", hashes_only=True)
                write_outcomes(outcomes, work / FATES / f"{number}-{name}.parquet")
        if fault and fault != "hung" and not any((work / FATES).iterdir()):
            raise DataError(
                f"{work.parent.parent}: img2dataset ended without a shard ({fault}):\n{tail(folder / 'log.txt')}",
                hint="the pool is as it was",
            )
        if any((work / FATES).glob(f"{number}-*")):
            files = parquet(f"{plain(work / FATES)}/{number}-*.parquet", literal=False)
            con.execute(f"INSERT INTO fates SELECT url, outcome, sha256 FROM {files}")


def _write(con: Any, work: Path, folder: Path) -> Path:
    """Write the state of each row that was asked; return the file."""
    failed = [
        o for (o,) in con.execute("SELECT DISTINCT outcome FROM fates WHERE outcome <> 'ok'").fetchall()
    ]
    lasts = ", ".join(text(o) for o in failed if lasting(o)) or "NULL"
    folder.mkdir(exist_ok=True)
    target = folder / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.parquet"
    states = (
        f"SELECT key, a.url, CASE WHEN outcome = 'ok' THEN if(f.sha256 = a.sha256, '{SAME}', '{CHANGED}') "
        f"WHEN outcome IN ({lasts}) THEN '{GONE}' ELSE '{UNKNOWN}' END AS state, "
        "CASE WHEN outcome IS NULL THEN 'no record' WHEN outcome <> 'ok' THEN outcome END AS reason, "
        "a.sha256, f.sha256 AS sha256_now FROM asked a LEFT JOIN fates f ON a.url = f.url ORDER BY key"
    )
    copy_parquet(con, states, target)
    return target
