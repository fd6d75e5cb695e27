"""`fetch`: from a table of URLs to a pool; `again`: what a pool's URLs give today."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from curate.builds.build import build
from curate.builds.plan import plan
from curate.datasets.dataset import INFO, OUTCOMES, Dataset, open_dataset
from curate.datasets.staging import disk_errors
from curate.errors import RecipeError
from curate.fetch.limits import FetchLimits
from curate.fetch.passes import DISTRIBUTORS, FetchOptions, download, require, tidy
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
    limits: FetchLimits | None = None,
    options: FetchOptions | None = None,
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
        limits: whom transfers may ask, and what they may cost.
        options: processes, threads, and who distributes them.
        retry: also try the rows whose failure may have passed: timeouts, broken connections, HTTP 429 and 5xx.

    Raises:
        RecipeError: there is no such table, it has no URLs, or `out` holds something else.
        DataError: img2dataset fails.
        MissingError: img2dataset is not installed.
    """
    began = time.monotonic()
    limits, options, progress = limits or FetchLimits(), options or FetchOptions(), progress or Quiet()
    if options.distributor not in DISTRIBUTORS:
        raise RecipeError(
            f"no distributor {options.distributor!r}", hint=f"there are {', '.join(DISTRIBUTORS)}"
        )
    require(options.distributor)
    if is_remote(out):
        raise RecipeError(
            f"{out}: a pool is a folder of this machine", hint="build shards from it into the store"
        )
    pool = Pool(Path(out))
    pool.refuse_foreign()
    _refuse_own(table, pool)
    asked = _asked_for(table, layout, pool)
    with disk_errors(pool.path), pool.locked():
        dataset = asked if isinstance(asked, Dataset) else _made(asked, pool, progress)
        _refuse_without_urls(dataset)
        request = Request(dataset, limits)
        if pool.is_finished(request) and not retry:
            return _summary(pool, request, 0, True, began)
        if changed := pool.begin(request):
            progress.say(changed)
        tidy(pool)
        tried = download(pool, request, options, progress, retry=retry)
        publish(pool, request, {"seconds": [["fetch", round(time.monotonic() - began, 3)]]})
        return _summary(pool, request, tried, False, began)


def _asked_for(table: str | Path | Sequence[str], layout: str, pool: Pool) -> Dataset | Recipe:
    """Return the rows to fetch as a dataset of URLs, or the recipe of one where tables are named.

    Raises:
        RecipeError: there is no table.
    """
    paths = [str(table)] if isinstance(table, str | Path) else [str(path) for path in table]
    datasets = [path for path in paths if not is_remote(path) and (Path(path) / INFO).exists()]
    if isinstance(table, str | Path) and datasets:
        return open_dataset(table)
    if datasets:
        raise RecipeError(
            f"{datasets[0]}: is a dataset among others", hint="put them together by `source: {union: …}`"
        )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", pool.path.resolve().name).strip("-._") or "table"
    recipe = parse({"name": name[:90], "source": {"table": paths, "as": layout}}, where="fetch")
    plan(recipe)
    return recipe


def _made(recipe: Recipe, pool: Pool, progress: Quiet) -> Dataset:
    return build(recipe, pool.fetched / ASKED, overlay=True, replace=True, progress=progress)[0].dataset


def _refuse_own(table: str | Path | Sequence[str], pool: Pool) -> None:
    for path in [table] if isinstance(table, str | Path) else table:
        if not is_remote(path) and Path(path).resolve().is_relative_to(pool.path.resolve()):
            raise RecipeError(
                f"{path}: lies in the pool that it would be fetched into",
                hint="`--again` asks a pool's URLs again; else choose another --out",
            )


def _refuse_without_urls(dataset: Dataset) -> None:
    has_urls = "url" in dataset.info.columns
    if not has_urls or (count := dataset.nulls("url")):
        what = (
            f"{count:,} of {len(dataset):,} rows have no URL" if has_urls else "its rows have no column `url`"
        )
        raise RecipeError(f"{dataset.path}: {what}", hint="`source: {table: …}` gives rows with URLs")


def _summary(pool: Pool, request: Request, tried: int, unchanged: bool, began: float) -> Fetched:
    import pyarrow.parquet as pq

    counts = pq.ParquetFile(pool.path / OUTCOMES).read(["outcome"])["outcome"].value_counts().to_pylist()
    outcomes = [(c["values"], c["counts"]) for c in counts]
    ordered = sorted(outcomes, key=lambda item: (item[0] != "ok", -item[1], item[0]))
    return Fetched(
        open_dataset(pool.path),
        len(request.dataset),
        dict(ordered),
        tried,
        unchanged,
        time.monotonic() - began,
    )
