"""`fetch`: from a table of URLs to a pool; `again`: what a pool's URLs give today."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.builds.build import build, disk_told
from curate.builds.plan import plan
from curate.datasets.dataset import INFO, OUTCOMES, Dataset, open_dataset
from curate.errors import RecipeError
from curate.fetch.limits import Guards
from curate.fetch.passes import DISTRIBUTORS, How, download, require, tidy
from curate.fetch.pools import ASKED, Pool, Request
from curate.fetch.publishing import publish
from curate.io.progress import Quiet
from curate.io.stores import is_remote
from curate.recipes.recipe import Recipe, parse


@dataclass(frozen=True)
class Fetched:
    """What a fetch came to.

    Args:
        dataset: the pool.
        rows: that were asked for.
        outcomes: outcome → rows, `ok` first, then the most frequent.
        tried: URLs that this call tried; rows that share one are tried at once.
        unchanged: whether the pool was there already and nothing was done.
        seconds: wall time of this call.
    """

    dataset: Dataset
    rows: int
    outcomes: dict[str, int]
    tried: int
    unchanged: bool
    seconds: float


def fetch(
    table: str | Path | Sequence[str],
    out: str | Path,
    *,
    layout: str = "auto",
    guards: Guards | None = None,
    how: How | None = None,
    retry: bool = False,
    progress: Quiet | None = None,
) -> Fetched:
    """Download the images of a table of URLs into a pool: a dataset of those that came, and what became of each row.

    The images keep their bytes. A URL that several rows have is asked for and stored once, and they share what came.
    A call that was killed goes on where it was: finished shards are kept. When the table has changed, or the limits,
    only the URLs that this concerns are tried; those that failed under the same limits are not, unless `retry` says so.

    Args:
        table: a dataset of URLs (an overlay over a source `table`), or tables themselves.
        out: the pool's folder.
        layout: of tables, see docs/layouts.md.
        guards: whom transfers may ask, and what they may cost.
        how: processes, threads, and who distributes them.
        retry: also try the rows whose failure may have passed: timeouts, broken connections, HTTP 429 and 5xx.

    Raises:
        RecipeError: there is no such table, it has no URLs, or `out` holds something else.
        DataError: img2dataset fails.
        MissingError: img2dataset is not installed.
    """
    began = time.monotonic()
    guards, how, progress = guards or Guards(), how or How(), progress or Quiet()
    if how.distributor not in DISTRIBUTORS:
        raise RecipeError(f"no distributor {how.distributor!r}", hint=f"there are {', '.join(DISTRIBUTORS)}")
    require(how.distributor)
    if is_remote(out):
        raise RecipeError(
            f"{out}: a pool is a folder of this machine", hint="build shards from it into the store"
        )
    pool = Pool(Path(out))
    pool.refuse_foreign()
    _refuse_own(table, pool)
    asked = _asked_for(table, layout, pool)
    with disk_told(pool.path), pool.locked():
        dataset = asked if isinstance(asked, Dataset) else _made(asked, pool, progress)
        _refuse_without_urls(dataset)
        request = Request(dataset, guards)
        if pool.is_finished(request) and not retry:
            return _told(pool, request, 0, True, began)
        if changed := pool.begin(request):
            progress.say(changed)
        tidy(pool)
        tried = download(pool, request, how, progress, retry=retry)
        publish(pool, request, {"seconds": [["fetch", round(time.monotonic() - began, 3)]]})
        return _told(pool, request, tried, False, began)


def _asked_for(table: str | Path | Sequence[str], layout: str, pool: Pool) -> Dataset | Recipe:
    """Return the rows to fetch as a dataset of URLs, or the recipe of one where tables are named.

    Raises:
        RecipeError: there is no table.
    """
    one = str(table) if isinstance(table, str | Path) else None
    several = [] if one is not None else [p for p in table if (Path(p) / INFO).exists()]  # type: ignore[union-attr]
    if several:
        raise RecipeError(
            f"{several[0]}: is a dataset among others", hint="put them together by `source: {union: …}`"
        )
    if one is None or is_remote(one) or not (Path(one) / INFO).exists():
        paths = [str(p) for p in table] if one is None else [one]  # type: ignore[union-attr]
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", pool.path.resolve().name).strip("-._") or "table"
        recipe = parse({"name": name[:90], "source": {"table": paths, "as": layout}}, where="fetch")
        plan(recipe)
        return recipe
    return open_dataset(one)


def _made(recipe: Recipe, pool: Pool, progress: Quiet) -> Dataset:
    return build(recipe, pool.fetched / ASKED, overlay=True, replace=True, progress=progress)[0].dataset


def _refuse_own(table: str | Path | Sequence[str], pool: Pool) -> None:
    for one in [table] if isinstance(table, str | Path) else table:
        if not is_remote(one) and Path(one).resolve().is_relative_to(pool.path.resolve()):
            raise RecipeError(
                f"{one}: lies in the pool that it would be fetched into",
                hint="`--again` asks a pool's URLs again; else choose another --out",
            )


def _refuse_without_urls(dataset: Dataset) -> None:
    there = "url" in dataset.info.columns
    if not there or (count := dataset.nulls("url")):
        what = f"{count:,} of {len(dataset):,} rows have no URL" if there else "its rows have no column `url`"
        raise RecipeError(f"{dataset.path}: {what}", hint="`source: {table: …}` gives rows with URLs")


def _told(pool: Pool, request: Request, tried: int, unchanged: bool, began: float) -> Fetched:
    import pyarrow.parquet as pq

    counts = pq.ParquetFile(pool.path / OUTCOMES).read(["outcome"])["outcome"].value_counts().to_pylist()
    found = {c["values"]: c["counts"] for c in counts}
    ordered = sorted(found.items(), key=lambda item: (item[0] != "ok", -item[1], item[0]))
    return Fetched(
        open_dataset(pool.path),
        len(request.dataset),
        dict(ordered),
        tried,
        unchanged,
        time.monotonic() - began,
    )
