"""What is done when img2dataset fails, hangs, lies or forgets: nothing is lost, and nothing waits for ever."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from webs import picture

from curate.errors import DataError
from curate.fetch import passes
from curate.fetch.limits import FetchLimits
from curate.fetch.passes import FetchOptions, Pass, download, tidy
from curate.fetch.pools import Pool
from curate.fetch.shards import read_shard
from curate.fetch.workers.supervisor import supervise
from curate.io.progress import Quiet, Stage

Row = tuple[str, str, str]
ROWS: list[Row] = [(f"k{i}", f"http://a.example/{i}.jpg", f"text {i}") for i in range(12)]
IMAGE = picture(1)


def write_shard(
    folder: Path, number: int, rows: Sequence[Row], *, failing: Sequence[str] = (), stats: bool = True
) -> None:
    """Write a shard as img2dataset 1.47 does, through the same tar writer."""
    name = f"{number:05d}"
    table = []
    with webdataset.TarWriter(str(folder / f"{name}.tar")) as tar:
        for i, (key, url, caption) in enumerate(rows):
            member = f"{number * 1000 + i:08d}"
            good = key not in failing
            if good:
                tar.write({"__key__": member, "jpg": IMAGE, "txt": caption, "json": json.dumps({"url": url})})
            table.append({"row": key, "url": url, "caption": caption, "key": member,
                          "status": "success" if good else "failed_to_download",
                          "error_message": None if good else "http 404: Not Found"})  # fmt: skip
    pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    if stats:
        ok = sum(r["status"] == "success" for r in table)
        told = {"count": len(table), "successes": ok, "end_time": 1.7e9}
        (folder / f"{name}_stats.json").write_text(json.dumps(told))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    pool = Pool(tmp_path / "pool")
    pool.outcomes.mkdir(parents=True)
    return pool


@pytest.fixture
def img2dataset(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let a function take the place of img2dataset: `img2dataset(behave)` returns the sizes of the rounds to come."""

    def play(behave: Callable[[Path, Sequence[Row], int, int], str | None]) -> list[int]:
        seen: list[int] = []

        def run(
            folder: Path, count: int, guards: FetchLimits, how: FetchOptions, size: int, *_: Any, **__: Any
        ) -> Any:
            told = pq.ParquetFile(folder / "todo").read().to_pylist()
            rows = [(r["row"], r["url"], r["caption"]) for r in told]
            assert len(rows) == count
            seen.append(count)
            (folder / "log.txt").write_text("a traceback\nof img2dataset\n")
            return behave(folder, rows, size, len(seen))

        monkeypatch.setattr(passes, "run", run)
        return seen

    return play


def fates(pool: Pool) -> dict[str, str]:
    rows = [r for f in sorted(pool.outcomes.glob("*.parquet")) for r in pq.read_table(f).to_pylist()]
    assert len({r["row"] for r in rows}) == len(rows)
    return {r["row"]: r["outcome"] for r in rows}


def go(pool: Pool, rows: Sequence[Row] = ROWS) -> None:
    asked = {name: [row[i] for row in rows] for i, name in enumerate(("key", "url", "caption"))}
    pq.write_table(pa.table(asked), pool.path / "request.parquet")
    request: Any = SimpleNamespace(limits=FetchLimits(), limits_digest="limits")
    urls = len({url for _, url, _ in rows})
    assert (
        download(pool, request, FetchOptions(processes=1, samples_per_shard=4), Quiet(), retry=False) == urls
    )


def test_rows_go_to_shards_in_order_and_failures_are_told(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    def behave(folder: Path, rows: Sequence[Row], size: int, _: int) -> None:
        for n in range(0, len(rows), size):
            write_shard(folder, n // size, rows[n : n + size], failing=["k5"])

    assert img2dataset(behave) == []
    go(pool)
    assert fates(pool) == {key: "http 404" if key == "k5" else "ok" for key, _, _ in ROWS}
    left = sorted(f.name for f in (pool.fetched / "0000").iterdir())
    assert left
    assert all(name.endswith(".tar") for name in left)


def test_a_round_that_broke_off_keeps_its_finished_shards(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    def behave(folder: Path, rows: Sequence[Row], size: int, number: int) -> str | None:
        write_shard(folder, 0, rows[:size])
        write_shard(folder, 1, rows[size : 2 * size], stats=False)
        return "exit code -9" if number == 1 else None

    seen = img2dataset(lambda f, rows, size, n: behave(f, rows, size, n) if n == 1 else whole(f, rows, size))
    go(pool)
    assert seen == [12, 12 - FetchOptions(processes=1, samples_per_shard=4).shard_size(12)]
    assert set(fates(pool).values()) == {"ok"}
    assert len(fates(pool)) == 12
    assert sorted(f.name for f in (pool.fetched / "0000").iterdir()) == ["00000.tar"]


def whole(folder: Path, rows: Sequence[Row], size: int) -> None:
    for n in range(0, len(rows), size):
        write_shard(folder, n // size, rows[n : n + size])


def test_a_row_that_hangs_twice_is_given_up_and_no_other(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    def behave(folder: Path, rows: Sequence[Row], size: int, _: int) -> str | None:
        for n in range(0, len(rows), size):
            hangs = any(key == "k7" for key, _, _ in rows[n : n + size])
            write_shard(folder, n // size, rows[n : n + size], stats=not hangs)
            if hangs:
                return "hung"
        return None

    seen = img2dataset(behave)
    go(pool)
    told = fates(pool)
    assert len(told) == 12
    assert {key for key, outcome in told.items() if outcome == "hung"} == {"k7"}
    assert len(seen) <= 4


def test_the_first_row_of_a_url_stands_for_all_when_a_round_breaks_off_and_when_it_is_given_up(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    rows = [(f"{name}{i}", url, f"{name} of {i}") for name in "zab" for i, (_, url, _) in enumerate(ROWS[:6])]

    def behave(folder: Path, left: Sequence[Row], size: int, number: int) -> str | None:
        assert [(key, text) for key, _, text in left] == [(f"z{k[1:]}", f"z of {k[1:]}") for k, _, _ in left]
        if number == 1:
            write_shard(folder, 0, left[:size])
            return "exit code -9"
        whole(folder, [row for row in left if row[0] != "z5"], size)
        return None

    seen = img2dataset(behave)
    go(pool, rows)
    assert fates(pool) == {f"z{i}": "no record" if i == 5 else "ok" for i in range(6)}
    assert seen == [6, 6 - FetchOptions(processes=1, samples_per_shard=4).shard_size(6), 1]
    with pool.connect() as con:
        shared = con.execute("SELECT key, outcome FROM request r JOIN fates f ON r.url = f.url").fetchall()
    assert dict(shared) == {key: "no record" if key.endswith("5") else "ok" for key, _, _ in rows}


def test_rows_that_img2dataset_forgets_have_no_record(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    seen = img2dataset(
        lambda folder, rows, size, _: whole(folder, [r for r in rows if r[0] != "k3"] or rows[:0], 100)
    )
    go(pool)
    assert fates(pool) == {key: "no record" if key == "k3" else "ok" for key, _, _ in ROWS}
    assert seen == [12, 1]


def test_an_img2dataset_that_does_nothing_is_told_with_its_last_words(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    seen = img2dataset(lambda *_: "exit code 1")
    with pytest.raises(DataError, match=r"ended twice without a shard \(exit code 1\):\n  a traceback"):
        go(pool)
    assert seen == [12, 12]
    assert list(pool.outcomes.iterdir()) == []


def test_an_img2dataset_that_never_begins_is_not_waited_for_without_end(
    pool: Pool, img2dataset: Callable[..., list[int]]
) -> None:
    seen = img2dataset(lambda *_: "hung")
    with pytest.raises(DataError, match=r"ended twice without a shard \(hung\)"):
        go(pool)
    assert seen == [12, 12]


def test_shards_are_taken_over_while_others_are_under_way(pool: Pool) -> None:
    folder = pool.pass_folder(0)
    folder.mkdir()
    write_shard(folder, 0, ROWS[:4])
    write_shard(folder, 1, ROWS[4:8], stats=False)
    (folder / "job").write_text(json.dumps({"limits": "some"}))
    one = Pass(pool, folder)
    one.take_over(at_last=False)
    assert one.taken == ["00000"]
    (folder / "00001_stats.json").write_text('{"count": 4, "succ')  # it is just being written
    one.take_over(at_last=False)
    write_shard(folder, 1, ROWS[4:8])
    one.end()
    assert sorted(one.taken) == ["00000", "00001"]
    kept = [pq.read_table(f)["guards"].to_pylist() for f in sorted(pool.outcomes.glob("*.parquet"))]
    assert kept == [["some"] * 4, ["some"] * 4]
    assert sorted(f.name for f in folder.iterdir()) == ["00000.tar", "00001.tar"]


def test_clearing_that_broke_off_forgets_nothing(pool: Pool) -> None:
    folder = pool.pass_folder(0)
    folder.mkdir()
    write_shard(folder, 0, ROWS[:4], failing=["k1"])
    (folder / "job").write_text(json.dumps({"limits": "some"}))
    Pass(pool, folder).take_over()
    (folder / "job").unlink()  # and then it was killed
    tidy(pool)
    [fates] = pool.outcomes.glob("*.parquet")
    assert set(pq.read_table(fates)["guards"].to_pylist()) == {"some"}


@pytest.mark.parametrize(
    "damage", ["cut tar", "lost member", "cut table", "half a report", "no tar", "other image"]
)
def test_a_shard_whose_parts_do_not_agree_is_not_taken_over(pool: Pool, damage: str) -> None:
    folder = pool.pass_folder(0)
    folder.mkdir()
    write_shard(folder, 0, ROWS[:4], failing=["k1"])
    whole_fates = read_shard(folder, "00000", pool=pool.path, limits_digest="g")
    assert [f.outcome for f in whole_fates] == ["ok", "http 404", "ok", "ok"]
    assert whole_fates[1].detail == "Not Found"
    tar, parquet, stats = (folder / f"00000{end}" for end in (".tar", ".parquet", "_stats.json"))
    if damage == "cut tar":
        tar.write_bytes(tar.read_bytes()[: len(IMAGE) + 700])
    elif damage == "lost member":
        write_shard(folder, 0, ROWS[:4], failing=["k1", "k2"], stats=False)
        kept = pq.read_table(parquet).to_pylist()
        kept[2] |= {"status": "success", "error_message": None}
        pq.write_table(pa.Table.from_pylist(kept), parquet)
    elif damage == "cut table":
        parquet.write_bytes(parquet.read_bytes()[:-20])
    elif damage == "half a report":
        stats.write_text(stats.read_text()[:10])
    elif damage == "no tar":
        tar.unlink()
    else:
        tar.write_bytes(tar.read_bytes().replace(IMAGE[:8], b"<html>  "))
    with pytest.raises(DataError, match="00000"):
        read_shard(folder, "00000", pool=pool.path, limits_digest="g")
    tidy(pool)
    assert list(pool.outcomes.iterdir()) == []
    assert not folder.exists()


def test_a_shard_in_which_all_failed_is_taken_over(pool: Pool) -> None:
    folder = pool.pass_folder(0)
    folder.mkdir()
    write_shard(folder, 0, ROWS[:3], failing=["k0", "k1", "k2"])
    tidy(pool)
    assert set(fates(pool).values()) == {"http 404"}


def test_a_child_that_does_not_move_is_ended_with_its_children(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(600)"
    )
    (tmp_path / "beats").mkdir()
    (tmp_path / "beats" / "a.json").write_text(json.dumps({"reasons": {"ok": 3}, "bytes": 100}))
    began = time.monotonic()
    fault = supervise([sys.executable, "-c", script], beats=tmp_path / "beats", log=tmp_path / "log", stall_s=0.3,
                    total=10, progress=Quiet())  # fmt: skip
    assert fault == "hung"
    assert time.monotonic() - began >= 0.3
    grandchild = int((tmp_path / "pid").read_text())
    command = ["ps", "-o", "stat=", "-p", str(grandchild)]
    while subprocess.run(command, capture_output=True, text=True).stdout.strip()[:1] not in ("", "Z"):
        time.sleep(0.05)  # it is killed, and dies when it next has its turn


def test_an_interrupt_ends_the_child(tmp_path: Path) -> None:
    (tmp_path / "beats").mkdir()
    (tmp_path / "beats" / "a.json").write_text(json.dumps({"reasons": {"ok": 3}, "bytes": 100}))
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    class Interrupted(Stage):
        def tell(self, line: str) -> None:
            if (tmp_path / "pid").exists():
                raise KeyboardInterrupt

    class Interrupting(Quiet):
        @contextmanager
        def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
            yield Interrupted()

    with pytest.raises(KeyboardInterrupt):
        supervise([sys.executable, "-c", script], beats=tmp_path / "beats", log=tmp_path / "log", stall_s=30.0,
                total=1, progress=Interrupting())  # fmt: skip
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
