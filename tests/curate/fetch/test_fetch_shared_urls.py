"""A URL that several rows have, such as the five captions of an image: asked for once, stored once, told for each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from webs import Web, picture

from curate.builds.build import build
from curate.fetch.drift import Drift, again
from curate.fetch.fetching import fetch
from curate.fetch.limits import FetchLimits
from curate.fetch.passes import FetchOptions
from curate.recipes.recipe import parse

pytestmark = pytest.mark.skipif(find_spec("img2dataset") is None, reason="needs curate-train[fetch]")

IMAGES = {f"{i}.jpg": picture(i) for i in range(6)}
HOW = FetchOptions(processes=1, threads=4)


def guards(**changes: Any) -> FetchLimits:
    return FetchLimits(
        **{"loopback": True, "timeout_s": 2.0, "deadline_s": 4.0, "backoff_s": 0.05, **changes}
    )


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(IMAGES) as web:
        yield web


CAPTIONS = [f"caption {i}" for i in range(5)]


def captioned(web: Web, file: Path, rows: list[tuple[str, str]]) -> Path:
    """A table of paths and texts."""
    urls = [web.url(path) for path, _ in rows]
    pq.write_table(pa.table({"URL": urls, "TEXT": [caption for _, caption in rows]}), file)
    return file


def places(pool: Path, path: str) -> set[tuple[Any, ...]]:
    """Where the rows of a URL have their bytes."""
    rows = pq.read_table(pool / "manifest.parquet").to_pylist()
    return {(r["file"], r["offset"], r["size"], r["sha256"]) for r in rows if r["url"].endswith(path)}


@pytest.mark.usefixtures("downloads_here")
def test_a_url_that_several_rows_have_is_asked_for_and_stored_once(
    web: Web, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    rows = [("/ok/0.jpg?five", c) for c in CAPTIONS] + [("/404/five", c) for c in CAPTIONS]
    rows += [("/ok/1.jpg?one", "alone")]
    file, pool = captioned(web, tmp_path / "t.parquet", rows), tmp_path / "pool"
    found = fetch(file, pool, limits=guards(), options=FetchOptions(processes=1, samples_per_shard=1))
    assert (found.rows, found.tried, found.outcomes) == (11, 3, {"ok": 6, "http 404": 5})
    assert [web.hits[p] for p in ("/ok/0.jpg?five", "/404/five", "/ok/1.jpg?one")] == [1, 1, 1]
    told = pq.read_table(pool / "outcomes.parquet").to_pylist()
    assert Counter(("/" + r["url"].split("/", 3)[3], r["outcome"]) for r in told) == {
        ("/ok/0.jpg?five", "ok"): 5, ("/404/five", "http 404"): 5, ("/ok/1.jpg?one", "ok"): 1,
    }  # fmt: skip
    made = found.dataset.table().to_pylist()
    wanted = [(web.url(p), c) for p, c in rows if p.startswith("/ok")]
    assert sorted((r["url"], r["caption"]) for r in made) == sorted(wanted)
    [(tar, offset, size, _)] = places(pool, "?five")
    assert found.dataset.reader().read(tar, offset, size) == IMAGES["0.jpg"]
    assert sum(IMAGES["0.jpg"] in f.read_bytes() for f in (pool / "fetched").rglob("*.tar")) == 1
    [note] = found.dataset.info.ledger[-1].notes
    assert note == "8 rows have the URL of another row, whose outcome and bytes they share"
    assert run_curate("verify", pool).exit_code == 0

    document = {"name": "s", "source": {"dataset": str(pool)}}
    sharded = build(parse(document), tmp_path / "set")[0].dataset
    assert sharded.sharded
    assert {r["caption"] for r in sharded.table().to_pylist()} == {*CAPTIONS, "alone"}
    assert run_curate("verify", tmp_path / "set").exit_code == 0
    build(parse(document), tmp_path / "overlay", overlay=True)
    assert run_curate("shard", tmp_path / "overlay").exit_code == 0
    assert run_curate("verify", tmp_path / "overlay").exit_code == 0

    drift = again(pool, limits=guards(), options=HOW)
    assert (drift.asked, drift.urls, drift.states["same"]) == (6, 2, 6)
    assert (web.hits["/ok/0.jpg?five"], web.hits["/ok/1.jpg?one"]) == (2, 2)


@pytest.mark.usefixtures("downloads_here")
def test_rows_of_a_url_share_what_a_retry_brings_and_more_rows_of_it_ask_nobody(
    web: Web, tmp_path: Path
) -> None:
    pool, path = tmp_path / "pool", "/500-then-200/2.jpg?rows"
    few = captioned(web, tmp_path / "few.parquet", [(path, c) for c in CAPTIONS[:3]])
    found = fetch(few, pool, limits=guards(retries=0), options=HOW)
    assert (found.tried, found.outcomes) == (1, {"http 500": 3})
    found = fetch(few, pool, limits=guards(retries=0), options=HOW, retry=True)
    assert (found.tried, found.outcomes, web.hits[path]) == (1, {"ok": 3}, 2)
    # The first row, which stood for the others, is gone; new ones come.
    more = captioned(web, tmp_path / "more.parquet", [(path, c) for c in [*CAPTIONS[:0:-1], "new"]])
    found = fetch(more, pool, limits=guards(retries=0), options=HOW)
    assert (found.rows, found.tried, found.outcomes, web.hits[path]) == (5, 0, {"ok": 5}, 2)
    assert len(places(pool, path)) == 1
    assert {r["caption"] for r in found.dataset.table().to_pylist()} == {*CAPTIONS[1:], "new"}


@pytest.mark.usefixtures("downloads_here")
def test_one_of_a_urls_rows_may_name_another_hash(web: Web, tmp_path: Path) -> None:
    right = hashlib.sha256(IMAGES["3.jpg"]).hexdigest()
    file = captioned(web, tmp_path / "t.parquet", [("/ok/3.jpg?hash", c) for c in CAPTIONS[:3]])
    hashed = pq.read_table(file).append_column("sha256", pa.array(["0" * 64, right, None], pa.string()))
    pq.write_table(hashed, file)
    found = fetch(file, tmp_path / "pool", limits=guards(), options=HOW)
    assert (found.tried, found.outcomes) == (1, {"ok": 2, "hash mismatch": 1})
    assert {r["caption"] for r in found.dataset.table().to_pylist()} == set(CAPTIONS[1:3])


@pytest.mark.usefixtures("downloads_here")
def test_a_pool_of_fates_that_name_no_url_goes_on_without_asking(web: Web, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    rows = [("/ok/4.jpg?old", CAPTIONS[0]), ("/404/old", CAPTIONS[0])]
    fetch(captioned(web, tmp_path / "old.parquet", rows), pool, limits=guards(), options=HOW)
    for fates in (pool / "fetched" / "fates").glob("*.parquet"):
        pq.write_table(pq.read_table(fates).drop_columns(["url"]), fates)
    rows += [("/ok/4.jpg?old", "more"), ("/ok/5.jpg?new", "other")]
    new = captioned(web, tmp_path / "new.parquet", rows)
    assert fetch(new, pool, limits=guards(), options=HOW).tried == 1
    columns = {"url" in pq.read_schema(f).names for f in (pool / "fetched" / "fates").glob("*.parquet")}
    assert columns == {True, False}
    found = fetch(captioned(web, new, [*rows, ("/ok/5.jpg?new", "last")]), pool, limits=guards(), options=HOW)
    assert (found.tried, found.outcomes) == (0, {"ok": 4, "http 404": 1})
    assert [web.hits[p] for p in ("/ok/4.jpg?old", "/404/old", "/ok/5.jpg?new")] == [1, 1, 1]


@pytest.mark.usefixtures("downloads_here")
def test_urls_are_known_again_whatever_characters_they_have(web: Web, tmp_path: Path) -> None:
    odd = ["é", "e\u0301", " x ", "a'b\"c", "\u2028", "%zz", "#f", "#g", "😀", "tab\t"]
    file = captioned(web, tmp_path / "t.parquet", [(f"/404/{o}", c) for o in odd for c in CAPTIONS[:2]])
    found = fetch(file, tmp_path / "pool", limits=guards(), options=HOW)
    assert (found.rows, sum(found.outcomes.values())) == (20, 20)
    assert found.tried == 10


def test_an_interval_takes_rows_of_one_url_for_one_draw(tmp_path: Path) -> None:
    def low_and_high(asked: int, urls: int) -> tuple[float, float]:
        states = {"same": asked // 2, "gone": asked // 2}
        return Drift(tmp_path, 1000, asked, urls, states, {}, tmp_path, 0.0).interval("gone")

    assert low_and_high(100, 20) == low_and_high(20, 20)
    assert low_and_high(100, 100)[0] > low_and_high(100, 20)[0]
