"""Killed, interrupted, out of room: nothing half-done is published, and the same command goes on to the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from campaigns import Campaign
from processes import Command

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.dataset import open_dataset
from curate.datasets.staging import OURS
from curate.io.progress import Quiet, Stage
from curate.recipes.recipe import Recipe, parse

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}."]}}]
MANY_SHARDS = {"samples_per_shard": 2}  # 30, so that there is time to interrupt
MakeRecipe = Callable[..., Recipe]
Tree = Callable[[Path], dict[str, bytes]]


class Interrupts(Quiet):
    """Presses Ctrl-C when so many units of a stage are done."""

    def __init__(self, title: str, after: int) -> None:
        self.title, self.after = title, after

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        yield _Counts(self.after) if title == self.title else Stage()


class _Counts(Stage):
    def __init__(self, left: int) -> None:
        self.left = left

    def advance(self, done: int = 1, total: int | None = None) -> None:
        self.left -= done
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(pool: Path, tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> dict[str, bytes]:
    """What a build that nobody disturbs comes to."""
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    document = {"name": "set", "source": {"folder": str(pool)}, "steps": STEPS, **MANY_SHARDS}
    build(parse(document), out, workers=2)
    return tree(out)


@pytest.mark.parametrize(("stage", "after"), [("steps", 1), ("writing shards", 1), ("writing shards", 20)])
def test_interrupted_build_goes_on_to_the_same_bytes(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree, undisturbed: dict[str, bytes], stage: str, after: int
) -> None:
    out = tmp_path / "set"
    with pytest.raises(KeyboardInterrupt):
        build(recipe(STEPS, **MANY_SHARDS), out, workers=1, progress=Interrupts(stage, after))
    assert not out.exists()
    done = {f.name: f.stat().st_ino for f in (tmp_path / ".set.building").glob("shards/*.tar")}
    build(recipe(STEPS, **MANY_SHARDS), out, workers=2)
    assert tree(out) == undisturbed
    assert {f.name: f.stat().st_ino for f in out.glob("shards/*.tar")}.items() >= done.items()
    assert len(done) >= (after // 2 if stage == "writing shards" else 0)


def test_interrupted_rebuild_leaves_the_old_dataset(recipe: MakeRecipe, tmp_path: Path, tree: Tree) -> None:
    out = tmp_path / "set"
    build(recipe(STEPS), out)
    before = tree(out)
    with pytest.raises(KeyboardInterrupt):
        build(recipe([*STEPS, {"sample": 30}], **MANY_SHARDS), out, progress=Interrupts("writing shards", 9))
    assert tree(out) == before


def test_another_recipe_does_not_go_on_with_what_was_left(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(recipe(STEPS, **MANY_SHARDS), tmp_path / "set", progress=Interrupts("writing shards", 9))
    other = recipe(STEPS[:1], seed=1, **MANY_SHARDS)
    build(other, tmp_path / "set")
    build(other, tmp_path / "fresh")
    assert tree(tmp_path / "set") == tree(tmp_path / "fresh")


def test_overlay_after_an_interrupted_build_has_no_shards(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(recipe(STEPS, **MANY_SHARDS), tmp_path / "set", progress=Interrupts("writing shards", 9))
    for name in ("set", "fresh"):
        build(recipe(STEPS, **MANY_SHARDS), tmp_path / name, overlay=True)
    assert tree(tmp_path / "set") == tree(tmp_path / "fresh")


@pytest.mark.parametrize("linked", [False, True])
def test_interrupted_shard_goes_on_to_the_same_bytes(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree, undisturbed: dict[str, bytes], linked: bool
) -> None:
    out = tmp_path / "set"
    build(recipe(STEPS, **MANY_SHARDS), out, overlay=True)
    with pytest.raises(KeyboardInterrupt):
        shard(out, workers=1, progress=Interrupts("writing shards", 9))
    assert not open_dataset(out).sharded
    if linked:  # killed later still, when the manifest had been put beside the shards
        shutil.copy(out / "manifest.parquet", tmp_path / ".set.building")
    shard(out, workers=2)
    assert tree(out) == undisturbed


Start = Callable[..., Command]


@pytest.fixture
def start(write_recipe: Callable[..., Path], pool: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a build in a process of its own: `start(out, steps)`."""
    started: list[Command] = []

    def run(out: Path, steps: list[Any] = STEPS, **how: Any) -> Command:
        file = write_recipe({"source": {"folder": str(pool)}, "steps": steps, **MANY_SHARDS}, "set")
        folder = tmp_path / f"process-{len(started)}"
        folder.mkdir()
        started.append(Command(folder, "build", file, "--out", out, "--workers", 1, **how))
        return started[-1]

    yield run
    for process in started:
        process.kill()


def caught(begin: Callable[[], Command], out: Path, moment: Callable[[], bool]) -> Command:
    """Start a build and return it at a moment of its work; on a busy machine that may take another try."""
    for _ in range(10):
        process = begin()
        while process.running:
            if moment():
                return process
            time.sleep(0.001)
        shutil.rmtree(out)
    pytest.fail("every build was over before its moment was seen")


def test_killed_build_goes_on_to_the_same_bytes(
    start: Start, tmp_path: Path, tree: Tree, undisturbed: dict[str, bytes]
) -> None:
    out, staging = tmp_path / "set", tmp_path / ".set.building"
    for name in ("plan.json", "000002.json", "000012.json"):
        assert start(out, dies_before=name).wait() == -signal.SIGKILL
        assert not out.exists()
    process = start(out)
    assert process.wait() == 0, process.stderr
    assert tree(out) == undisturbed
    assert not staging.exists()


@pytest.mark.campaign
def test_build_killed_at_any_moment_goes_on_to_the_same_bytes(
    start: Start,
    recipe: MakeRecipe,
    tmp_path: Path,
    tree: Tree,
    undisturbed: dict[str, bytes],
    campaign: Campaign,
) -> None:
    began = time.monotonic()
    out, staging, states = tmp_path / "set", tmp_path / ".set.building", Counter[str]()
    assert start(out).wait() == 0
    whole_s = time.monotonic() - began
    count = campaign.count(200)
    for i in range(count):
        shutil.rmtree(out)
        process = start(out)
        time.sleep(whole_s * i / count)
        process.kill()
        shards = len(list(staging.glob("shards/*.tar")))
        states["published" if out.exists() else f"{shards // 10 * 10}–{shards // 10 * 10 + 9} shards"] += 1
        build(recipe(STEPS, **MANY_SHARDS), out)
        assert tree(out) == undisturbed
        assert not staging.exists()
    campaign.tell(f"{count} builds killed, by what they had done: {dict(states)}")


@pytest.mark.parametrize("name", ["plan.json", "000015.json", "index.parquet", "README.md", "dataset.json"])
def test_file_that_a_kill_left_without_its_name_is_not_published(
    start: Start, recipe: MakeRecipe, tmp_path: Path, tree: Tree, undisturbed: dict[str, bytes], name: str
) -> None:
    out, staging = tmp_path / "set", tmp_path / ".set.building"
    assert start(out, dies_before=name).wait() == -signal.SIGKILL
    assert [file for file in staging.rglob(".*.tmp") if file.name.startswith(f".{name}.")]
    build(recipe(STEPS, **MANY_SHARDS), out)
    assert tree(out) == undisturbed


def test_file_that_a_kill_left_in_a_dataset_does_not_make_it_foreign(
    recipe: MakeRecipe, tmp_path: Path
) -> None:
    build(recipe(STEPS), tmp_path / "set")
    (tmp_path / "set/.README.md.4711.tmp").write_bytes(b"---")  # `curate export` was killed
    [same] = build(recipe(STEPS), tmp_path / "set")
    assert same.unchanged
    [other] = build(recipe([*STEPS, {"sample": 30}]), tmp_path / "set")
    assert not other.unchanged
    assert {entry.name for entry in (tmp_path / "set").iterdir()} <= OURS


def test_of_two_builds_at_once_one_wins_and_the_other_says_so(
    start: Start, tmp_path: Path, tree: Tree, undisturbed: dict[str, bytes]
) -> None:
    out, staging = tmp_path / "set", tmp_path / ".set.building"
    first = caught(lambda: start(out), out, lambda: len(list(staging.glob("shards/*.tar"))) >= 1)
    first.send_signal(signal.SIGSTOP)
    try:
        second = start(out)
        code = second.wait()
    finally:
        first.send_signal(signal.SIGCONT)
    assert (code, first.wait()) == (2, 0)
    assert "another build is writing it" in second.stderr
    assert tree(out) == undisturbed


_MANY = "string_split(lpad(key, 600, 'a,'), ',')"  # 300 texts, on each of which an expression takes its time
_HARD = "len(list_filter({}, lambda x: regexp_matches(lpad(x, 1000, 'a'), '(a?){{{}}}b'))) >= 0"
SLOW = {"where": " AND ".join(_HARD.format(_MANY, times) for times in range(500, 508))}  # seconds


@pytest.mark.parametrize("moment", ["writing shards", "in a query"])
def test_ctrl_c_stops_with_a_word_and_no_traceback(start: Start, tmp_path: Path, moment: str) -> None:
    out, staging = tmp_path / "set", tmp_path / ".set.building"
    if moment == "writing shards":
        process = caught(lambda: start(out), out, lambda: len(list(staging.glob("parts/*.json"))) >= 2)
    else:
        process = caught(lambda: start(out, [SLOW]), out, lambda: (staging / "work").exists())
        time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130, process.stderr
    assert "stopped; the same command goes on from here" in process.stderr
    assert "Traceback" not in process.stderr
    assert not out.exists()


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small disk: `tmpfs("size=64k")`; only root may, others skip."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


# No room for a table, for a shard, for all shards.
@pytest.mark.parametrize("size", ["size=24k", "size=120k", "size=250k"])
def test_full_disk_is_told_and_nothing_is_published(
    tmpfs: Callable[[str], Path],
    recipe: MakeRecipe,
    tmp_path: Path,
    run_curate: Callable[..., Any],
    size: str,
) -> None:
    disk = tmpfs(size)
    recipe(STEPS, samples_per_shard=16)
    result = run_curate("build", tmp_path / "set.yaml", "--out", disk / "set")
    assert result.exit_code == 3, result.output
    assert "disk is full; nothing was published" in result.stderr
    assert not (disk / "set").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert run_curate("build", tmp_path / "set.yaml", "--out", disk / "set").exit_code == 0
    assert os.listdir(disk) == ["set"]


def test_disk_that_takes_no_writing_is_told(
    tmpfs: Callable[[str], Path], recipe: MakeRecipe, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    disk = tmpfs("ro")
    recipe(STEPS)
    result = run_curate("build", tmp_path / "set.yaml", "--out", disk / "set")
    assert result.exit_code == 2
    assert "cannot be written (Read-only file system)" in result.stderr
    assert "choose another --out" in result.stderr


def test_cache_that_takes_no_writing_is_told(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_curate: Callable[..., Any]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "file" / "cache"))
    recipe(STEPS)
    result = run_curate("build", tmp_path / "set.yaml", "--out", tmp_path / "set")
    assert result.exit_code == 3
    assert "set CURATE_CACHE to a folder with room" in result.stderr


@pytest.mark.parametrize("again", ["build", "shard"])
def test_set_put_aside_by_a_killed_publishing_is_put_back(
    recipe: MakeRecipe, tmp_path: Path, tree: Tree, again: str
) -> None:
    made, out = recipe(STEPS), tmp_path / "set"
    build(made, out, overlay=True)
    whole = tree(out)
    out.rename(tmp_path / ".set.old")  # between the two renames that publish a set
    if again == "build":
        assert build(made, out, overlay=True)[0].unchanged
        assert tree(out) == whole
    else:
        assert shard(out).dataset.sharded
    assert not (tmp_path / ".set.old").exists()
