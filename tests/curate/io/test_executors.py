"""Other executors give the same bytes; a worker that dies costs time and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from campaigns import masses
from processes import Command

from curate.builds.build import build
from curate.builds.sharding import shard
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


@pytest.mark.parametrize("late", masses([False, True], kept=bool))
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
    with pytest.raises(DataError, match="task 1 lost its Ray worker"):
        list(ordered(die_always, range(2), executor="ray", workers=2))


@pytest.mark.parametrize("dying", masses([[7], [2, 21, 40]], kept=lambda numbers: len(numbers) == 1))
def test_build_whose_ray_workers_are_killed_ends_with_the_same_bytes(
    cluster: Any,
    recipe: MakeRecipe,
    tmp_path: Path,
    tree: Tree,
    monkeypatch: pytest.MonkeyPatch,
    dying: list[int],
) -> None:
    made = recipe(STEPS, samples_per_shard=1 if len(dying) > 1 else 6)
    build(made, tmp_path / "local")
    marks = tmp_path / "marks"
    marks.mkdir()

    def run_and_die(task: Callable[[int], Any], number: int) -> Any:
        """Do a task; some numbers die in the middle of it, or just after, the first time."""
        mark = marks / str(number)
        if number in dying and not mark.exists():
            mark.touch()
            threading.Timer(0.001 * (number % 4), os.kill, (os.getpid(), signal.SIGKILL)).start()
            task(number)
            time.sleep(60)
        return task(number)

    monkeypatch.setattr("curate.io.executors._run", run_and_die)
    build(made, tmp_path / "ray", executor="ray")
    assert sorted(int(mark.name) for mark in marks.iterdir()) == list(dying)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


@pytest.mark.parametrize("count", masses([1, 20, 45], kept=lambda count: count == 20))
def test_build_on_ray_that_is_killed_goes_on_to_the_same_bytes(
    cluster: Any, recipe: MakeRecipe, tmp_path: Path, tree: Tree, count: int
) -> None:
    made, out = recipe(STEPS, samples_per_shard=1), tmp_path / "ray"
    build(made, tmp_path / "local")
    address = {"RAY_ADDRESS": cluster.get_runtime_context().gcs_address}
    driver = Command(
        tmp_path, "build", tmp_path / "set.yaml", "--executor", "ray", "--out", out,
        env=address,
    )  # fmt: skip
    while driver.running and len(list((tmp_path / ".ray.building").glob("parts/*.json"))) < count:
        time.sleep(0.01)
    driver.kill()
    assert not out.exists()
    build(made, out, executor="ray" if count == 20 else "local")
    assert tree(out) == tree(tmp_path / "local")
