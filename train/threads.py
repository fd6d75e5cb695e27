"""Work done by threads, its results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_order(tasks: Iterable[Callable[[], T]], workers: int, ahead: int) -> Generator[T, None, None]:
    """Yield what the tasks return, in their order; close the iterator and the work stops.

    Args:
        tasks: taken one by one, never more than `ahead` before they are needed.
        workers: threads; with 0 the tasks run in the caller's.
        ahead: tasks that may be under way or waiting to be taken.
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
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
