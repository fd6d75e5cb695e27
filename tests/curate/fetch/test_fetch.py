"""From a table of URLs to a pool: every row has an outcome, finished work is never lost, nothing is left running."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
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
from curate.datasets.dataset import Dataset, open_dataset
from curate.errors import RecipeError
from curate.fetch.drift import again
from curate.fetch.fetching import Fetched, fetch
from curate.fetch.limits import FetchLimits
from curate.fetch.passes import FetchOptions
from curate.recipes.recipe import parse

pytestmark = pytest.mark.skipif(find_spec("img2dataset") is None, reason="needs curate-train[fetch]")

IMAGES = {f"{i}.jpg": picture(i) for i in range(12)} | {"p.png": picture(20, kind="PNG")}
GOOD = [f"/ok/{name}" for name in IMAGES]
GOOD += ["/500-then-200/0.jpg", "/redirect/1.jpg", "/wrong-type/2.jpg", "/gone/3.jpg", "/changed/4.jpg"]
BAD = {
    "/404/a": "http 404", "/html/a": "not an image", "/truncated/5.jpg": "damaged image", "/noai/6.jpg": "opted out",
    "/private/a": "refused address", "/bomb/a": "too many pixels", "/endless/a": "too large", "/drip/a": "timeout",
    "/loop/a": "too many redirects", "/file/a": "refused scheme", "/503/a": "http 503", "/reset/a": "connection failed",
    "/empty/a": "empty",
}  # fmt: skip
HOW = FetchOptions(processes=2, threads=16)


def guards(**changes: Any) -> FetchLimits:
    usual = {"loopback": True, "timeout_s": 3.0, "deadline_s": 4.0, "backoff_s": 0.05, "max_bytes": 300_000}
    return FetchLimits(**{**usual, "retries": 1, **changes})


def table(web: Web, paths: list[str], file: Path, **columns: list[Any]) -> Path:
    urls = [web.url(p) for p in paths]
    pq.write_table(pa.table({"URL": urls, "TEXT": [f"text of {p}" for p in paths], **columns}), file)
    return file


def outcomes(pool: Path) -> dict[str, str]:
    """Path of the URL → outcome."""
    rows = pq.read_table(pool / "outcomes.parquet").to_pylist()
    return {"/" + r["url"].split("/", 3)[3]: r["outcome"] for r in rows}


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web(IMAGES) as web:
        web.robots = "User-agent: *\nDisallow: /ok/forbidden\n"
        yield web


@pytest.fixture(scope="module")
def fetched(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    """A pool of all that the web does right and wrong."""
    work = tmp_path_factory.mktemp("fetched")
    right = hashlib.sha256(IMAGES["7.jpg"]).hexdigest()
    paths = [*GOOD, *BAD, "/ok/forbidden", "/ok/7.jpg?right", "/ok/7.jpg?wrong"]
    told = [None] * (len(paths) - 2) + [right.upper(), "0" * 64]
    file = table(
        web, paths, work / "t.parquet", sha256=pa.array(told, pa.string()), score=list(range(len(paths)))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CURATE_CACHE", str(work / "cache"))
        return fetch(file, work / "pool", limits=guards(), options=HOW)


def pool_of(found: Fetched) -> Path:
    assert isinstance(found.dataset.path, Path)
    return found.dataset.path


def test_every_row_has_the_outcome_that_its_url_earned(fetched: Fetched) -> None:
    wanted = dict.fromkeys(GOOD, "ok") | BAD | {
        "/ok/forbidden": "robots.txt", "/ok/7.jpg?right": "ok", "/ok/7.jpg?wrong": "hash mismatch",
    }  # fmt: skip
    assert outcomes(pool_of(fetched)) == wanted
    assert fetched.rows == fetched.tried == len(wanted)
    assert fetched.outcomes == Counter(wanted.values())
    assert next(iter(fetched.outcomes)) == "ok"
    step = fetched.dataset.info.ledger[-1]
    assert (step.step, step.rows_in, step.rows_out) == ("fetch", len(wanted), fetched.outcomes["ok"])
    assert sum(step.refused.values()) == step.rows_in - step.rows_out == len(BAD) + 2


def test_a_pools_bytes_are_those_that_were_served(fetched: Fetched, web: Web) -> None:
    rows = fetched.dataset.table().to_pylist()
    reader = fetched.dataset.reader()
    assert len(rows) == fetched.outcomes["ok"]
    for row in rows:
        name = row["url"].rpartition("/")[2].partition("?")[0]
        data = reader.read(row["file"], row["offset"], row["size"])
        if "changed" not in row["url"]:
            assert data == IMAGES[name]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert (row["width"], row["height"]) == (160, 120)
        assert row["ext"] == ("png" if name == "p.png" else "jpg")
        assert row["key"] == hashlib.md5(f"{row['url']}\n{row['caption']}".encode()).hexdigest()
        assert row["score"] is not None


def test_a_pool_is_a_dataset_like_any_other(
    fetched: Fetched, run_curate: Callable[..., Any], tmp_path: Path
) -> None:
    assert run_curate("verify", pool_of(fetched)).exit_code == 0
    said = run_curate("show", pool_of(fetched))
    assert said.exit_code == 0
    assert "too many pixels" in said.stdout
    recipe = parse(
        {
            "name": "from-pool",
            "source": {"dataset": str(pool_of(fetched))},
            "steps": [{"sample": {"number": 5}}],
        }
    )
    made = build(recipe, tmp_path / "set")[0].dataset
    assert made.sharded
    assert len(made) == 5
    assert run_curate("verify", tmp_path / "set").exit_code == 0


@pytest.mark.usefixtures("downloads_here")
def test_the_same_command_on_a_finished_pool_asks_nobody(fetched: Fetched, web: Web) -> None:
    before = Counter(web.hits)
    asked = pool_of(fetched).parent / "t.parquet"
    found = fetch(asked, pool_of(fetched), limits=guards(), options=HOW)
    assert (found.unchanged, found.tried, found.outcomes) == (True, 0, fetched.outcomes)
    assert web.hits == before


@pytest.mark.usefixtures("downloads_here")
def test_two_downloads_have_the_same_rows_and_bytes(web: Web, tmp_path: Path) -> None:
    file = table(web, [f"/ok/{n}" for n in IMAGES] + ["/404/x"], tmp_path / "t.parquet")
    found = []
    for i, how in enumerate((HOW, FetchOptions(processes=1, threads=1, samples_per_shard=3))):
        pool = fetch(file, tmp_path / f"pool{i}", limits=guards(), options=how).dataset
        found.append(pool.table(["key", "sha256", "width", "ext", "caption"]))
    assert found[0].num_rows == len(IMAGES)
    assert found[0] == found[1]


def test_a_build_from_a_pool_is_the_same_every_time(
    fetched: Fetched, tmp_path: Path, tree: Callable[..., Any]
) -> None:
    document = {"name": "s", "source": {"dataset": str(fetched.dataset.path)}, "samples_per_shard": 4}
    one, two = (
        tree(build(parse(document), tmp_path / n, workers=w)[0].dataset.path) for n, w in (("a", 1), ("b", 3))
    )
    assert len([f for f in one if f.endswith(".tar")]) == 5
    assert one == two


@pytest.mark.usefixtures("downloads_here")
def test_a_changed_table_is_asked_for_what_is_new_alone(web: Web, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    first = table(web, ["/ok/0.jpg?a", "/ok/1.jpg?a", "/404/gone"], tmp_path / "one.parquet")
    fetch(first, pool, limits=guards(), options=HOW)
    before = Counter(web.hits)
    second = table(web, ["/ok/1.jpg?a", "/404/gone", "/ok/2.jpg?new"], tmp_path / "two.parquet")
    found = fetch(second, pool, limits=guards(), options=HOW)
    assert found.tried == 1
    assert {p for p in web.hits if web.hits[p] > before[p]} - {"/robots.txt"} == {"/ok/2.jpg?new"}
    assert outcomes(pool) == {"/ok/1.jpg?a": "ok", "/404/gone": "http 404", "/ok/2.jpg?new": "ok"}
    tighter = fetch(second, pool, limits=guards(max_bytes=100), options=HOW)
    assert tighter.outcomes == {"too large": 2, "http 404": 1}  # known by their sizes
    assert tighter.tried == 1  # the failure, which other limits might not have
    assert web.hits["/ok/1.jpg?a"] == 1
    with pytest.raises(RecipeError, match="holds the pool of 3 other rows"):
        fetch(table(web, ["/ok/9.jpg?other"], tmp_path / "three.parquet"), pool, limits=guards(), options=HOW)
    assert len(outcomes(pool)) == 3


@pytest.mark.usefixtures("downloads_here")
def test_retry_tries_what_may_have_passed_and_nothing_else(web: Web, tmp_path: Path) -> None:
    file = table(
        web, ["/ok/0.jpg?r", "/404/r", "/500-then-200/1.jpg?r", "/noai/2.jpg?r"], tmp_path / "t.parquet"
    )
    found = fetch(file, tmp_path / "pool", limits=guards(retries=0), options=HOW)
    assert found.outcomes == {"ok": 1, "http 404": 1, "http 500": 1, "opted out": 1}
    found = fetch(file, tmp_path / "pool", limits=guards(retries=0), options=HOW, retry=True)
    assert found.outcomes == {"ok": 2, "http 404": 1, "opted out": 1}
    assert found.tried == 1
    assert [web.hits[p] for p in ("/ok/0.jpg?r", "/404/r", "/noai/2.jpg?r")] == [1, 1, 1]


@pytest.mark.usefixtures("downloads_here")
def test_asking_again_tells_what_is_gone_and_what_changed(
    fetched: Fetched, web: Web, run_curate: Callable[..., Any]
) -> None:
    pool = pool_of(fetched)
    before = (pool / "dataset.json").read_bytes()
    still = again(pool, limits=guards(), options=HOW)
    assert still.states == {"same": fetched.outcomes["ok"], "changed": 0, "gone": 0, "unknown": 0}
    web.turn()
    try:
        turned = again(pool, limits=guards(), options=HOW)
    finally:
        web.turned = False
    assert turned.states == {"same": fetched.outcomes["ok"] - 2, "changed": 1, "gone": 1, "unknown": 0}
    assert turned.reasons == {"http 404": 1}
    told = {
        r["url"].split("/", 3)[3]: r for r in pq.read_table(turned.table).to_pylist() if r["state"] != "same"
    }
    assert {p: r["state"] for p, r in told.items()} == {"gone/3.jpg": "gone", "changed/4.jpg": "changed"}
    assert told["changed/4.jpg"]["sha256_now"] != told["changed/4.jpg"]["sha256"]
    assert (pool / "dataset.json").read_bytes() == before
    some = run_curate("fetch", pool, "--again", "--number", 3, "--allow-loopback", "--json", "--processes", 1)
    assert json.loads(some.stdout)["asked"] == 3


class Killed:
    """A fetch in a process of its own, which is killed once so many URLs were asked for."""

    def __init__(self, web: Web, file: Path, pool: Path, *options: str) -> None:
        self.web = web
        self.arguments = ["fetch", str(file), "--out", str(pool), "--allow-loopback", "--processes", "2",
                          "--threads", "2", "--samples-per-shard", "5", *options]  # fmt: skip

    def after(self, asked: Callable[[], bool]) -> None:
        command = [sys.executable, "-m", "train.cli", *self.arguments]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: asked() or process.poll() is not None)
            assert process.poll() is None, "it ended before it was killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true; what never is ends by the time-out of tests."""
    while not true():
        time.sleep(0.05)


def running(mark: str) -> list[str]:
    """The command lines of processes that a fetch into a folder of this name has started."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"CURATE_MARK={mark}" in environment and int(pid) != os.getpid():
            found.append(line)
    return found


@pytest.mark.usefixtures("downloads_here")  # by what goes on after the kill
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_killed_it_leaves_nobody_running_and_goes_on_where_it_was(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_curate: Callable[..., Any]
) -> None:
    mark = tmp_path.name
    monkeypatch.setenv("CURATE_MARK", mark)
    paths = [f"/slow/{i % 12}.jpg?k{i}" for i in range(60)]
    file = table(web, paths, tmp_path / "t.parquet")
    pool = tmp_path / "pool"
    fates = pool / "fetched" / "0000"
    run = Killed(web, file, pool)
    run.after(lambda: len(list(fates.glob("*_stats.json"))) >= 2)
    until(lambda: not running(mark))
    assert not (pool / "dataset.json").exists()
    kept = {json.loads(f.read_text())["count"] for f in fates.glob("*_stats.json")}
    assert kept == {5}
    whole = [
        n
        for f in fates.glob("*_stats.json")
        for n in pq.read_table(str(f)[:-11] + ".parquet")["url"].to_pylist()
    ]
    done = run_curate(*run.arguments, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["outcomes"] == {"ok": 60}
    assert found["tried"] <= 60 - len(whole)
    assert len(whole) >= 10
    assert {web.hits["/" + url.split("/", 3)[3]] for url in whole} == {1}


@pytest.mark.usefixtures("downloads_here")
def test_what_cannot_be_fetched_is_refused_with_what_to_do(
    tmp_path: Path, built: Callable[..., Dataset], run_curate: Callable[..., Any]
) -> None:
    images = built([{"per_class": 2}], name="images")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("x")
    (tmp_path / "t.csv").write_text("url,caption\nhttp://a.example/1.jpg,x\n")
    cases = [
        ((images.path, "--out", tmp_path / "p"), 2, "no column `url`"),
        ((tmp_path / "absent.parquet", "--out", tmp_path / "p"), 2, "no such table"),
        ((tmp_path / "t.csv", "--out", tmp_path / "foreign"), 2, "'thesis.tex' and is no pool"),
        ((tmp_path / "t.csv",), 2, "--out is missing"),
        ((tmp_path / "t.csv", "--out", "s3://bucket/p"), 2, "folder of this machine"),
        ((tmp_path / "t.csv", "--out", tmp_path / "p", "--distributor", "dask"), 2, "no distributor 'dask'"),
        ((images.path, "--again"), 2, "no pool"),
        ((tmp_path / "t.csv", "--out", tmp_path / "p", "--timeout", "0"), 2, "timeout_s is 0"),
    ]  # fmt: skip
    for arguments, code, fault in cases:
        said = run_curate("fetch", *arguments)
        assert (said.exit_code, fault in said.stderr) == (code, True), (arguments, said.stderr)
    assert os.listdir(tmp_path / "foreign") == ["thesis.tex"]
    assert not (tmp_path / "p").exists()


@pytest.mark.usefixtures("downloads_here")
def test_a_pool_that_is_being_fetched_is_not_fetched_twice(web: Web, tmp_path: Path) -> None:
    from curate.fetch.pools import Pool

    file = table(web, ["/ok/0.jpg"], tmp_path / "t.parquet")
    with Pool(tmp_path / "pool").locked(), pytest.raises(RecipeError, match="another fetch is writing it"):
        fetch(file, tmp_path / "pool", limits=guards(), options=HOW)


@pytest.mark.usefixtures("downloads_here")
def test_a_pool_that_lost_its_manifest_is_made_again_without_asking(web: Web, tmp_path: Path) -> None:
    file = table(web, ["/ok/0.jpg?m", "/404/m"], tmp_path / "t.parquet")
    first = fetch(file, tmp_path / "pool", limits=guards(), options=HOW)
    (tmp_path / "pool" / "manifest.parquet").unlink()
    (tmp_path / "pool" / "dataset.json").unlink()
    found = fetch(file, tmp_path / "pool", limits=guards(), options=HOW)
    assert (found.tried, found.dataset.digest) == (0, first.dataset.digest)
    assert open_dataset(tmp_path / "pool").table().num_rows == 1
    assert (web.hits["/ok/0.jpg?m"], web.hits["/404/m"]) == (1, 1)


@pytest.mark.usefixtures("downloads_here")
def test_a_tables_own_columns_may_be_called_as_ours(web: Web, tmp_path: Path) -> None:
    own = {
        name: ["x", "y"] for name in ("row", "outcome", "detail", "guards", "round", "at", "limits", "number")
    }
    file = table(web, ["/ok/0.jpg?o", "/404/o"], tmp_path / "t.parquet", **own)
    found = fetch(file, tmp_path / "round=3" / "n=7", limits=guards(), options=HOW)
    [row] = found.dataset.table().to_pylist()
    assert {c: row[c] for c in own} == dict.fromkeys(own, "x")
    assert not {"n", "table_n"} & row.keys()
    told = pq.ParquetFile(pool_of(found) / "outcomes.parquet").read().to_pylist()
    assert {r["outcome"] for r in told} == {"ok", "http 404"}


@pytest.mark.usefixtures("downloads_here")
def test_a_pool_is_not_fetched_into_itself(fetched: Fetched) -> None:
    before = (pool_of(fetched) / "outcomes.parquet").read_bytes()
    for inside in (pool_of(fetched), pool_of(fetched) / "manifest.parquet"):
        with pytest.raises(RecipeError, match="lies in the pool that it would be fetched into"):
            fetch(inside, pool_of(fetched), limits=guards(), options=HOW)
    assert (pool_of(fetched) / "outcomes.parquet").read_bytes() == before


@pytest.mark.usefixtures("downloads_here")
def test_a_fetch_that_was_killed_at_its_very_beginning_goes_on(web: Web, tmp_path: Path) -> None:
    file = table(web, ["/ok/0.jpg?b"], tmp_path / "t.parquet")
    pool = tmp_path / "pool"
    (pool / "fetched").mkdir(parents=True)
    (pool / ".request.parquet.tmp").write_bytes(b"PAR1 half")
    assert fetch(file, pool, limits=guards(), options=HOW).outcomes == {"ok": 1}


@pytest.mark.usefixtures("downloads_here")
def test_going_back_to_limits_asks_nobody_again(web: Web, tmp_path: Path) -> None:
    file = table(web, ["/ok/0.jpg?g", "/404/g"], tmp_path / "t.parquet")
    tried = [
        fetch(file, tmp_path / "pool", limits=guards(max_bytes=size), options=HOW).tried
        for size in (300_000, 200_000, 300_000)
    ]
    assert tried == [2, 1, 0]
    assert (web.hits["/ok/0.jpg?g"], web.hits["/404/g"]) == (1, 2)
    last = fetch(file, tmp_path / "pool", limits=guards(max_bytes=200_000), options=HOW).dataset
    assert last.info.ledger[-1].notes == [
        "1 rows were fetched under other limits (`limits` in outcomes.parquet)"
    ]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_killed_while_the_child_starts_it_leaves_nobody_running(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path.name
    monkeypatch.setenv("CURATE_MARK", mark)
    run = Killed(web, table(web, ["/slow/1.jpg?q"], tmp_path / "t.parquet"), tmp_path / "pool")
    run.after(lambda: any("curate.fetch.workers.process" in line for line in running(mark)))
    until(lambda: not running(mark))
    assert web.hits["/slow/1.jpg?q"] == 0


def test_what_lies_in_the_current_folder_is_not_imported(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table(web, ["/ok/0.jpg?c"], tmp_path / "t.parquet")
    for name in ("exifread", "queue", "random"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    how = FetchOptions(processes=1, threads=1)
    assert fetch(file, tmp_path / "pool", limits=guards(), options=how).outcomes == {"ok": 1}
