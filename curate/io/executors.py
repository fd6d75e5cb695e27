"""Executors: tasks on local threads or on a Ray cluster, with results in order."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from curate.errors import DataError, MissingError, reject_unknown

Executor = Literal["local", "ray"]
TRIES = 3  # of a task whose worker dies, each of which Ray itself begins a second time

T = TypeVar("T")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require(executor: str) -> None:
    """Refuse an unknown or uninstalled executor before any work begins.

    Raises:
        RecipeError: the executor is unknown.
        MissingError: Ray is not installed.
    """
    reject_unknown(executor, get_args(Executor), f"--executor {executor}: no such executor")
    if executor == "ray":
        try:
            import ray  # noqa: F401
        except ImportError as error:
            hint = "pip install 'curate-train[ray]'"
            raise MissingError("--executor ray: Ray is not installed", hint=hint) from error


def ordered(
    task: Callable[[int], T], numbers: Iterable[int], *, executor: str = "local", workers: int
) -> Iterator[T]:
    """Run a task for each number and yield the results in order; an exception or Ctrl-C stops the rest.

    Args:
        task: a pure function of the number; Ray pickles it, so it should hold paths rather than tables.
        executor: `local` (threads) or `ray` (tasks; without a cluster yet, that of `RAY_ADDRESS` or a new one).
        workers: threads; with Ray the cluster's cores decide, and a new cluster gets this many.

    Raises:
        RecipeError, MissingError: see `require`.
        DataError: a task lost its worker six times; also whatever the task raises.
    """
    require(executor)
    if executor == "ray":
        return _ray(task, list(numbers), workers)
    tasks = [partial(task, number) for number in numbers]
    return in_order(tasks, workers, ahead=len(tasks) + 1)


def unordered(
    task: Callable[[int], T], numbers: Iterable[int], *, workers: int, gpus: float = 0
) -> Iterator[T]:
    """Run a task for each number on Ray and yield each result when it is ready.

    Args:
        task, workers: see `ordered`.
        gpus: that each task gets, if the cluster has any.

    Raises:
        RecipeError, MissingError, DataError: see `ordered`.
    """
    require("ray")
    ray = _joined(workers)
    held = ray.put(task)
    claims = {"num_gpus": gpus} if gpus and ray.cluster_resources().get("GPU", 0) else {"num_cpus": 1}
    run = ray.remote(max_retries=1, **claims)(_run)
    running = {run.remote(held, number): number for number in numbers}
    try:
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            number = running[done]
            yield _result(ray, run, held, number, done)
            del running[done]
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _ray(task: Callable[[int], T], numbers: list[int], workers: int) -> Iterator[T]:
    ray = _joined(workers)
    held = ray.put(task)
    run = ray.remote(max_retries=1)(_run)
    slots = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)  # so that no core waits for the driver
    waiting, running = deque(numbers), deque[tuple[int, Any]]()
    try:
        while waiting or running:
            while waiting and len(running) < slots:
                number = waiting.popleft()
                running.append((number, run.remote(held, number)))
            yield _result(ray, run, held, *running[0])
            running.popleft()
    finally:
        for _, reference in running:
            ray.cancel(reference, force=True)


def _result(ray: Any, run: Any, held: Any, number: int, reference: Any) -> Any:
    for _ in range(TRIES):
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError):
            reference = run.remote(held, number)
    raise DataError(
        f"task {number} lost its Ray worker {2 * TRIES} times",
        hint="did it run out of memory? use fewer CPUs",
    )


def _run(task: Callable[[int], T], number: int) -> T:
    return task(number)


def _joined(workers: int) -> Any:
    """Return Ray, connected to a cluster and silent."""
    import ray

    if not ray.is_initialized():
        own: dict[str, Any] = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
        )
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
    return ray


def in_order(tasks: Iterable[Callable[[], T]], workers: int, ahead: int) -> Generator[T, None, None]:
    """Run tasks on threads and yield their results in order; close the iterator to stop.

    Args:
        tasks: drawn from the iterable as they are needed.
        workers: threads; with 0 the tasks run in the caller's thread.
        ahead: how many tasks may be running, or finished and not yet yielded.
    """
    if not workers:
        yield from (task() for task in tasks)
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[T]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()  # and forgets it: results may be large
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
