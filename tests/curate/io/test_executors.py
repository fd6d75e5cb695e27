"""Other executors give the same bytes; a worker that dies costs time and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from curate.builds.build import build, shard
from curate.errors import DataError, MissingError
from curate.io.executors import ordered
from curate.recipes.recipe import Recipe

STEPS: list[Any] = [{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a photo of a {}."]}}]
MakeRecipe = Callable[..., Recipe]
Tree = Callable[[Path], dict[str, str]]


def test_results_come_in_order_and_all_numbers_are_done() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * number

    assert list(ordered(slow_first, range(20), workers=4)) == [n * n for n in range(20)]


def test_first_error_ends_the_work() -> None:
    done: list[int] = []

    def third_fails(number: int) -> None:
        time.sleep(0.01)
        if number == 3:
            raise DataError("three")
        done.append(number)

    with pytest.raises(DataError, match="three"):
        list(ordered(third_fails, range(1000), workers=2))
    assert len(done) < 20


def test_unknown_executor_is_told(recipe: MakeRecipe, tmp_path: Path, run_curate: Callable[..., Any]) -> None:
    recipe(STEPS)
    result = run_curate("build", tmp_path / "set.yaml", "--out", tmp_path / "set", "--executor", "rai")
    assert result.exit_code == 2
    assert "did you mean 'ray'?" in result.stderr
    assert not (tmp_path / "set").exists()


def test_missing_ray_is_told_with_what_to_install(
    recipe: MakeRecipe, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match=r"(?s)Ray is not installed.*curate-train\[ray\]"):
        build(recipe(STEPS), tmp_path / "set", executor="ray")


@pytest.mark.parametrize("late", [False, True])
def test_ray_gives_the_bytes_of_threads(
    cluster: Any, recipe: MakeRecipe, tmp_path: Path, tree: Tree, late: bool
) -> None:
    made = recipe(STEPS, bytes_per_shard=8000)
    build(made, tmp_path / "local")
    build(made, tmp_path / "ray", executor="ray", overlay=late)
    if late:
        shard(tmp_path / "ray", executor="ray")
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")
    assert len(tree(tmp_path / "ray")) > 6


def test_error_in_a_ray_task_is_told_as_in_a_thread(
    cluster: Any, recipe: MakeRecipe, make_pool: Callable[..., Path], tmp_path: Path
) -> None:
    pool = make_pool(tmp_path / "own")
    out = tmp_path / "set"
    build(recipe(STEPS, source={"folder": str(pool)}), out, overlay=True)
    (pool / "n02084071" / "n02084071_3.jpg").unlink()
    with pytest.raises(
        DataError, match=r"(?s)n02084071_3\.jpg: cannot be read.*hint: the pool moved"
    ) as error:
        shard(out, executor="ray")
    assert type(error.value) is DataError


def die_once(folder: Path, number: int) -> tuple[int, int]:
    """Die as the kernel's memory killer would have it, the first time that number 3 comes by."""
    mark = folder / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


def die_always(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_killed_ray_worker_costs_its_task_only_time(cluster: Any, tmp_path: Path) -> None:
    found = list(ordered(partial(die_once, tmp_path), range(8), executor="ray", workers=2))
    assert (tmp_path / "died").exists()
    assert [number for number, _ in found] == list(range(8))
    assert os.getpid() not in {pid for _, pid in found}


def test_task_that_always_kills_its_worker_is_given_up(cluster: Any) -> None:
    began = time.monotonic()
    with pytest.raises(DataError, match="task 1 lost its Ray worker"):
        list(ordered(die_always, range(3), executor="ray", workers=2))
    assert time.monotonic() - began < 60


def test_build_whose_ray_workers_are_killed_ends_with_the_same_bytes(
    cluster: Any, recipe: MakeRecipe, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(STEPS, samples_per_shard=1)
    build(made, tmp_path / "local")
    marks = tmp_path / "marks"
    marks.mkdir()

    def run_and_die(task: Callable[[int], Any], number: int) -> Any:
        """Do a task; each of three numbers dies in the middle of it, or just after, the first time."""
        mark = marks / str(number)
        if number in (2, 21, 40) and not mark.exists():
            mark.touch()
            threading.Timer(0.001 * (number % 4), os.kill, (os.getpid(), signal.SIGKILL)).start()
            task(number)
            time.sleep(60)
        return task(number)

    monkeypatch.setattr("curate.io.executors._run", run_and_die)
    build(made, tmp_path / "ray", executor="ray")
    assert sorted(int(mark.name) for mark in marks.iterdir()) == [2, 21, 40]
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


def test_build_on_ray_that_is_killed_goes_on_to_the_same_bytes(
    cluster: Any, recipe: MakeRecipe, tmp_path: Path, tree: Tree
) -> None:
    made = recipe(STEPS, samples_per_shard=1)
    build(made, tmp_path / "local")
    command = [sys.executable, "-m", "train.cli", "build", str(tmp_path / "set.yaml"), "--executor", "ray"]
    address = {**os.environ, "RAY_ADDRESS": cluster.get_runtime_context().gcs_address}
    for count in (1, 20, 45):
        out, staging = tmp_path / f"ray-{count}", tmp_path / f".ray-{count}.building"
        with subprocess.Popen(
            [*command, "--out", str(out)], env=address, stderr=subprocess.DEVNULL
        ) as driver:
            while driver.poll() is None and len(list(staging.glob("parts/*.json"))) < count:
                time.sleep(0.001)
            driver.kill()
        assert not out.exists()
        build(made, out, executor="ray" if count == 20 else "local")
        assert tree(out) == tree(tmp_path / "local")
