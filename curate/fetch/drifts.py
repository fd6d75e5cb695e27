"""Drift: what the URLs of a pool give today, beside what they gave when it was made."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from curate.chance import chance
from curate.datasets import open_dataset
from curate.errors import DataError, RecipeError
from curate.fetch.guards import Guards
from curate.fetch.outcomes import lasting
from curate.fetch.pools import FETCHED, STATE, Pool
from curate.fetch.rounds import MISSES, TODO, How, require, run
from curate.fetch.shards import Fate, finished, read_shard
from curate.files import sync_file
from curate.progress import Quiet

SAME, CHANGED, GONE, UNKNOWN = "same", "changed", "gone", "unknown"
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Drift:
    """What became of a pool's URLs.

    Args:
        pool: its folder.
        rows: of the pool.
        asked: how many were asked again.
        states: same (the bytes), changed, gone (a failure that lasts), unknown (one that may pass) → rows.
        reasons: why rows are gone or unknown → rows.
        table: a Parquet file with key, url, state, reason, and the sha256 then and now of each row asked.
        seconds: wall time.
    """

    pool: Path
    rows: int
    asked: int
    states: dict[str, int]
    reasons: dict[str, int]
    table: Path
    seconds: float

    def interval(self, state: str) -> tuple[float, float]:
        """Return a 95 % interval for the share of a state in the whole pool (Wilson's; exact where all were asked)."""
        share, n = self.states.get(state, 0) / self.asked, self.asked
        if n == self.rows:
            return share, share
        middle, spread = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        scale = 1 + Z**2 / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def again(
    pool: str | Path,
    *,
    number: int | None = None,
    guards: Guards | None = None,
    how: How | None = None,
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
    guards, how, progress = guards or Guards(), how or How(), progress or Quiet()
    require(how.distributor)
    path = Path(pool)
    dataset = open_dataset(path)
    if not (path / STATE).exists():
        raise RecipeError(f"{path}: a dataset, but no pool", hint="`curate fetch TABLE --out POOL` makes one")
    rows = dataset.table(["key", "url", "sha256"]).to_pylist()
    rows.sort(key=lambda r: (chance(r["key"], 0, "again"), r["key"]))
    asked = rows[: number or len(rows)]
    if not asked:
        raise DataError(f"{path}: the pool has no rows", hint="its failures are in outcomes.parquet")
    with Pool(path).locked():
        work = path / FETCHED / "again"
        fates = _asked(work, asked, guards, how, progress)
    states = {r["key"]: _state(fates[r["key"]], r["sha256"]) for r in asked}
    table = _written(path, asked, fates, states)
    reasons = Counter(fates[k].outcome for k, s in states.items() if s in (GONE, UNKNOWN))
    counts = Counter(states.values())
    return Drift(
        path, len(rows), len(asked), {s: counts[s] for s in (SAME, CHANGED, GONE, UNKNOWN)},
        dict(reasons.most_common()), table, time.monotonic() - began,
    )  # fmt: skip


def _asked(work: Path, rows: list[dict], guards: Guards, how: How, progress: Quiet) -> dict[str, Fate]:
    """Fetch the hashes of rows; what img2dataset does not answer twice is of no record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fates: dict[str, Fate] = {}
    for _ in range(MISSES):
        left = [(r["key"], r["url"]) for r in rows if r["key"] not in fates]
        if not left:
            break
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        keys, urls = zip(*left, strict=True)
        pq.write_table(pa.table({"row": keys, "url": urls, "caption": [""] * len(left)}), work / TODO)
        run(work, len(left), guards, how, how.shard_size(len(left)), progress, limits="", hashes_only=True)
        for name in finished(work):
            found = read_shard(work, name, pool=work.parent.parent, guards="", hashes_only=True)
            fates |= {fate.row: fate for fate in found}
    shutil.rmtree(work, ignore_errors=True)
    return {r["key"]: fates.get(r["key"], Fate(r["key"], "no record")) for r in rows}


def _state(now: Fate, sha256: str) -> str:
    if now.outcome != "ok":
        return GONE if lasting(now.outcome) else UNKNOWN
    return SAME if now.sha256 == sha256 else CHANGED


def _written(path: Path, rows: list[dict], fates: dict[str, Fate], states: dict[str, str]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = path / "drift"
    folder.mkdir(exist_ok=True)
    found = [fates[r["key"]] for r in rows]
    told = pa.table(
        {
            "key": [r["key"] for r in rows],
            "url": [r["url"] for r in rows],
            "state": [states[r["key"]] for r in rows],
            "reason": pa.array([None if f.outcome == "ok" else f.outcome for f in found], pa.string()),
            "sha256": [r["sha256"] for r in rows],
            "sha256_now": pa.array([f.sha256 for f in found], pa.string()),
        }
    )
    target = folder / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.parquet"
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    pq.write_table(told, beside, compression="zstd")
    sync_file(beside)
    os.replace(beside, target)
    return target
