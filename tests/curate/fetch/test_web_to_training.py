"""From a real table of the web to a trained model, with a web that fails and a process that is killed on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from campaigns import masses
from webs import Web

pytestmark = [
    pytest.mark.skipif(find_spec("img2dataset") is None, reason="needs curate-train[fetch]"),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
]

# One row in five fails, in eight ways: path → outcome.
FAILING = {
    "404": "http 404", "503": "http 503", "html": "not an image", "truncated": "damaged image", "noai": "opted out",
    "private": "refused address", "reset": "connection failed", "bomb": "too many pixels",
}  # fmt: skip
ROWS, SHARD = 750, 50  # to fetch
OPTIONS = (
    "--allow-loopback", "--processes", "2", "--threads", "8", "--samples-per-shard", str(SHARD), "--retries", "1",
    "--timeout", "30", "--deadline", "60", "--no-robots",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(shared: Path) -> Mapping[str, bytes]:
    """Photographs of Flickr 8k and COCO by name."""
    found = {}
    for name in ("flickr8k.tar", "coco.tar"):
        with tarfile.open(shared / "data" / name) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    found[os.path.basename(member.name)] = stream.read()
    assert len(found) == 325
    return found


@pytest.fixture
def table(shared: Path, images: Mapping[str, bytes], tmp_path: Path) -> Iterator[tuple[Web, Path]]:
    """Real rows of LAION, whose URLs lead to this machine."""
    rows = pq.read_table(shared / "data" / "tables" / "laion_precursor_6000.parquet")
    names, ways = sorted(images), list(FAILING)
    with Web(images) as web:
        urls = []
        for i, url in enumerate(rows["URL"].to_pylist()):
            name = names[int(hashlib.md5(url.encode()).hexdigest(), 16) % len(names)]
            way = ways[i // 5 % 8] if i % 5 == 0 else "ok"
            urls.append(web.url(f"/{way}/{name}?{i}") if "://" in url else url)
        rows = rows.set_column(0, "URL", [urls])
        pq.write_table(rows, tmp_path / "laion.parquet")
        yield web, tmp_path / "laion.parquet"


def marked(mark: str) -> list[str]:
    """The command lines of the processes that carry a mark, besides this one."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if f"CURATE_MARK={mark}".encode() in environment and int(pid) != os.getpid():
                found.append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return found


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true; what never is ends by the time-out of tests."""
    while not true():
        time.sleep(0.02)


@pytest.mark.parametrize("kills", masses([[3], [2, 5]], kept=lambda kills: len(kills) == 1))
def test_from_a_table_of_the_web_to_a_trained_model(
    table: tuple[Web, Path],
    images: Mapping[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_curate: Callable[..., Any],
    kills: list[int],
) -> None:
    def curate(*arguments: object) -> dict[str, Any]:
        done = run_curate(*arguments, "--json")
        assert done.exit_code == 0, done.stderr
        answer = json.loads(done.stdout)
        return answer[0] if isinstance(answer, list) and answer else answer

    _, file = table
    mark = tmp_path.name
    monkeypatch.setenv("CURATE_MARK", mark)
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))

    # Filter and slice the table.
    recipe = {
        "name": "slice", "source": {"table": str(file), "as": "laion"},
        "steps": [{"filter": {"min_words": 3, "min_characters": 6}}, {"sample": {"number": ROWS}}],
        "expect": {"rows": ROWS, "captions": True},
    }  # fmt: skip
    (tmp_path / "slice.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    made = curate("build", tmp_path / "slice.yaml", "--overlay", "--out", tmp_path / "slice")
    assert made["rows"] == ROWS
    asked = pq.read_table(tmp_path / "slice" / "manifest.parquet").to_pylist()
    wanted = Counter(FAILING.get(row["url"].split("/")[3], "ok") for row in asked)
    assert len(wanted) == 9
    assert 0.17 < 1 - wanted["ok"] / ROWS < 0.23

    # Fetch it, killed twice.
    pool = tmp_path / "pool"
    fetch = [
        sys.executable,
        "-m",
        "train.cli",
        "fetch",
        str(tmp_path / "slice"),
        "--out",
        str(pool),
        *OPTIONS,
    ]
    for number in kills:
        process = subprocess.Popen(fetch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda n=number, p=process: _shards(pool) >= n or p.poll() is not None)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: not marked(mark))
        assert not (pool / "dataset.json").exists()
    kept = _shards(pool)
    assert kept >= kills[-1]
    found = curate(*fetch[3:])
    assert not marked(mark)
    assert found["outcomes"] == wanted
    assert (found["rows"], found["ok"]) == (ROWS, wanted["ok"])
    assert found["tried"] <= ROWS - SHARD * kept
    outcomes = pq.read_table(pool / "outcomes.parquet").to_pylist()
    assert {r["key"] for r in outcomes} == {r["key"] for r in asked}
    assert all(FAILING.get(r["url"].split("/")[3], "ok") == r["outcome"] for r in outcomes)

    # Its bytes are those that the web has.
    rows = pq.read_table(pool / "manifest.parquet", columns=["url", "sha256"]).to_pylist()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in images.items()}
    assert all(hashes[r["url"].rpartition("/")[2].partition("?")[0]] == r["sha256"] for r in rows)

    # A set from the pool, in shards, and an epoch over it.
    recipe = {
        "name": "set", "source": {"dataset": str(pool)}, "samples_per_shard": 150, "resize": {"short": 64},
        "steps": [{"where": "width >= 64 AND height >= 64"}, {"sample": {"number": 300}}],
        "expect": {"rows": 300, "captions": True},
    }  # fmt: skip
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    made = curate("build", tmp_path / "set.yaml", "--out", tmp_path / "set")
    assert (made["rows"], made["shards"]) == (300, 2)
    shards = sorted(map(str, (tmp_path / "set" / "shards").glob("*.tar")))
    read = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    captions = {row["key"]: row["caption"] for row in asked}
    assert len(read) == 300
    assert all(captions[s["__key__"]] == s["txt"].decode() for s in read)
    assert curate("verify", tmp_path / "set") == []
    small = (
        "--model",
        "convnet",
        "--image-size",
        "32",
        "--text-width",
        "32",
        "--text-layers",
        "1",
        "--batch-size",
        "50",
    )
    done = run_curate(
        "train", "clip", tmp_path / "set", "--out", tmp_path / "run", *small, "--epochs", 1, "--quiet"
    )
    assert done.exit_code == 0, done.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["samples_seen"] == 300
    assert not marked(mark)


def _shards(pool: Path) -> int:
    """How many shards are finished, taken over or not."""
    fetched = pool / "fetched"
    taken = {f.stem for f in fetched.glob("fates/*.parquet")}
    there = {f"{f.parent.name}-{f.name[: -len('_stats.json')]}" for f in fetched.glob("[0-9]*/*_stats.json")}
    return len(taken | there)
