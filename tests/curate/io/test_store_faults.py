"""A store that goes away, a build into one that is killed: told, and the same command goes on to the same bytes."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from campaigns import Campaign, masses
from processes import Command
from stores import Store, fetched, moved

from curate.builds.build import build
from curate.datasets.dataset import open_dataset
from curate.datasets.verification import verify
from curate.errors import RecipeError
from curate.io import byte_ranges, paths
from curate.io.byte_ranges import ByteRangeReader
from curate.io.paths import RemotePath
from curate.io.progress import Quiet, Stage
from curate.io.stores import StoreError
from curate.io.tars.archive import TarWriter
from curate.io.tars.scan import find_tars
from curate.recipes.recipe import Recipe

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}."]}}]
MakeRecipe = Callable[..., Recipe]
Tree = Callable[[Path], dict[str, str]]


class Stops(Quiet):
    """Stops the store when so many samples are in shards."""

    def __init__(self, store: Store, after: int) -> None:
        self.store, self.left = store, after

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        yield _Counting(self) if title == "writing shards" else Stage()


class _Counting(Stage):
    def __init__(self, stops: Stops) -> None:
        self.stops = stops

    def advance(self, done: int = 1, total: int | None = None) -> None:
        before, self.stops.left = self.stops.left, self.stops.left - done
        if before > 0 >= self.stops.left:
            self.stops.store.stop()


@pytest.mark.parametrize("out", ["remote", "local"])
def test_store_that_goes_away_and_comes_back(
    recipe: MakeRecipe, store: Store, bucket: str, tmp_path: Path, tree: Tree, out: str
) -> None:
    build(recipe([]), f"{bucket}/pool")
    made = recipe(STEPS, source={"dataset": f"{bucket}/pool"}, samples_per_shard=4)
    build(made, tmp_path / "undisturbed")
    place = f"{bucket}/set" if out == "remote" else str(tmp_path / "set")
    try:
        with pytest.raises(StoreError, match="the store failed 3 times"):
            build(made, place, workers=1, progress=Stops(store, 16))
    finally:
        store.start()
    top = RemotePath(place) if out == "remote" else tmp_path / ".set.building"
    files = [name for name in paths.sizes(top) if name.endswith(".tar")]
    assert 4 <= len(files) < 15
    assert "dataset.json" not in paths.sizes(top)
    written: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "curate.builds.shards.writing.TarWriter",
            lambda p, s: (written.append(p.name), TarWriter(p, s))[1],
        )
        build(made, place)
    assert sorted(files + [f"shards/{name}" for name in written]) == [
        f"shards/{i:06d}.tar" for i in range(15)
    ]
    copy = fetched(place, tmp_path / "copy") if out == "remote" else tmp_path / "set"
    assert moved(tree(copy)) == moved(tree(tmp_path / "undisturbed"))


@pytest.mark.parametrize(
    "name", masses(["plan.json", "000003.tar", "dataset.json"], lambda n: n == "000003.tar")
)
def test_build_into_a_store_that_is_killed_goes_on_to_the_same_bytes(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, tree: Tree, name: str
) -> None:
    made, out = recipe(STEPS, samples_per_shard=8), f"{bucket}/set"
    build(made, tmp_path / "undisturbed")
    command = Command(
        tmp_path, "build", tmp_path / "set.yaml", "--workers", 1, "--out", out, dies_before=name
    )
    assert command.wait() == -signal.SIGKILL, command.stderr
    assert "dataset.json" not in paths.sizes(RemotePath(out))
    build(made, out)
    assert moved(tree(fetched(out, tmp_path / "copy"))) == moved(tree(tmp_path / "undisturbed"))


@pytest.mark.campaign
def test_build_into_a_store_killed_at_any_moment_goes_on_to_the_same_bytes(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, tree: Tree, campaign: Campaign
) -> None:
    made, count = recipe(STEPS, samples_per_shard=2), campaign.count(100)
    build(made, tmp_path / "undisturbed")
    command = ["build", tmp_path / "set.yaml", "--workers", 1, "--out"]
    began = time.monotonic()
    assert Command(tmp_path, *command, f"{bucket}/first").wait() == 0
    whole_s = time.monotonic() - began
    states = Counter[int]()
    for i in range(count):
        process = Command(tmp_path, *command, f"{bucket}/{i}")
        time.sleep(whole_s * i / count)
        process.kill()
        states[len(paths.sizes(RemotePath(f"{bucket}/{i}")))] += 1
        build(made, f"{bucket}/{i}")
        copy = fetched(f"{bucket}/{i}", tmp_path / f"copy-{i}")
        assert moved(tree(copy)) == moved(tree(tmp_path / "undisturbed"))
    campaign.tell(f"{count} builds killed; files in the store then → builds: {dict(sorted(states.items()))}")


def test_set_that_is_being_replaced_is_no_dataset_until_it_is_whole(recipe: MakeRecipe, bucket: str) -> None:
    build(recipe(STEPS), f"{bucket}/set")

    class Presses(Quiet):
        @contextmanager
        def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
            if title == "writing shards":
                raise KeyboardInterrupt
            yield Stage()

    with pytest.raises(KeyboardInterrupt):
        build(recipe(STEPS, seed=1), f"{bucket}/set", progress=Presses())
    with pytest.raises(RecipeError, match="not a dataset"):
        open_dataset(f"{bucket}/set")
    assert len(build(recipe(STEPS, seed=1), f"{bucket}/set")[0].dataset) == 60
    assert verify(f"{bucket}/set") == []


def test_store_that_is_gone_is_told_and_asked_three_times(
    recipe: MakeRecipe, store: Store, bucket: str, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    build(recipe([]), f"{bucket}/pool")
    store.stop()
    try:
        result = run_curate("show", f"{bucket}/pool")
        [failed] = ByteRangeReader(f"{bucket}/pool").read_many(["shards/000000.tar"], [512], [10])
    finally:
        store.start()
    assert result.exit_code == 3, result.output
    assert "the store failed 3 times" in result.stderr
    assert isinstance(failed, StoreError)


def test_store_that_is_gone_ends_the_verification_of_an_overlay_at_the_first_read(
    recipe: MakeRecipe, store: Store, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(recipe([]), f"{bucket}/pool")
    build(recipe([], source={"dataset": f"{bucket}/pool"}), tmp_path / "overlay", overlay=True)
    asked: list[object] = []
    read = ByteRangeReader.read_many
    monkeypatch.setattr("curate.datasets.verification.ROWS_PER_READ", 1)
    monkeypatch.setattr(
        ByteRangeReader, "read_many", lambda self, *rows: (asked.append(rows), read(self, *rows))[1]
    )
    store.stop()
    try:
        with pytest.raises(StoreError, match="the store failed 3 times"):
            verify(tmp_path / "overlay")
    finally:
        store.start()
    assert len(asked) <= 2 * (os.cpu_count() or 1)  # of 60 reads; a thread may begin its second


def test_verification_of_an_overlay_fetches_many_rows_at_once(
    recipe: MakeRecipe, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(recipe([]), f"{bucket}/pool")
    build(recipe([], source={"dataset": f"{bucket}/pool"}), tmp_path / "overlay", overlay=True)
    asked: list[object] = []
    cat = byte_ranges._cat
    monkeypatch.setattr(byte_ranges, "_cat", lambda spans: (asked.extend(spans), cat(spans))[1])
    assert verify(tmp_path / "overlay") == []
    assert len(asked) == 4  # 60 rows in four tars


def test_store_without_credentials_is_not_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # where credentials may lie
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr("curate.io.stores.time.sleep", lambda _: pytest.fail("asked again"))
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        results = [run_curate(name, "s3://bucket/set") for name in ("verify", "show")]
        [failed] = ByteRangeReader("s3://bucket/set").read_many(["a"], [512], [10])
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    for result in results:
        assert result.exit_code == 3, result.output
        assert "no credentials" in result.stderr
        assert "hint: set AWS_ACCESS_KEY_ID and" in result.stderr
    assert isinstance(failed, StoreError)
    assert "no credentials" in failed.message


def test_tars_at_an_address_where_nobody_answers_are_told(
    run_curate: Callable[..., Any], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_ALLOW_LOOPBACK", "1")
    pytest.importorskip("aiohttp", reason="needs aiohttp, which fsspec speaks http through")
    store.stop()
    try:
        result = run_curate("verify", f"{store.url}/pool/000000.tar")
        with pytest.raises(StoreError, match="the store failed 3 times"):
            find_tars(f"{store.url}/pool/{{000..001}}.tar")
    finally:
        store.start()
    assert result.exit_code == 3, result.output
    assert "the store failed 3 times" in result.stderr
