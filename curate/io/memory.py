"""Memory budgets that the threads of a process share: a thread that needs much memory waits until there is enough."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

FREE_BYTES = 1 << 20  # of a body that need no reservation: nearly all images of the web are smaller
_BODY_BYTES = 512_000_000


class MemoryBudget:
    """An amount of memory that the threads of a process reserve parts of, first come, first served.

    A thread must not reserve a second part while it holds one: two threads could wait for each other forever. After a
    fork the child's budget is free again, for it has none of the parent's threads.

    Args:
        size: of the budget, in any unit; a thread that reserves more gets all of it, alone.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._empty()
        os.register_at_fork(after_in_child=self._empty)

    def _empty(self) -> None:
        self._lock = threading.Lock()
        self._free = self.size
        self._waiting: deque[tuple[int, threading.Event]] = deque()

    @contextmanager
    def reserved(self, amount: int, *, until: float | None = None) -> Iterator[None]:
        """Wait for an amount and hold it while the block runs.

        Args:
            until: the time by `time.monotonic` at which to give up.

        Raises:
            TimeoutError: the amount was not free until then.
        """
        amount = min(amount, self.size)
        self._take(amount, until)
        try:
            yield
        finally:
            with self._lock:
                self._free += amount
                self._let_in()

    def _take(self, amount: int, until: float | None) -> None:
        with self._lock:
            if not self._waiting and amount <= self._free:
                self._free -= amount
                return
            waiting = (amount, threading.Event())
            self._waiting.append(waiting)
        let_in = False
        try:
            let_in = waiting[1].wait(None if until is None else max(0.0, until - time.monotonic()))
        finally:
            if not let_in:
                self._leave(waiting)
        if not let_in:
            raise TimeoutError("no memory was free in time")

    def _leave(self, waiting: tuple[int, threading.Event]) -> None:
        with self._lock:
            if waiting[1].is_set():  # let in at the last moment
                self._free += waiting[0]
            else:
                self._waiting.remove(waiting)
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, come = self._waiting.popleft()
            self._free -= amount
            come.set()


_bodies = MemoryBudget(_BODY_BYTES)


class Reservation:
    """The memory that a body holds until its bytes have been checked; a context manager.

    It is reserved once, for all that the body may need: two bodies that each held a part and waited for the rest
    would wait until their deadlines.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._taken = False

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: Any) -> None:
        self._taken = False
        self._stack.close()

    def take(self, size: int, until: float) -> None:
        """Reserve so many bytes at the first call; later calls do nothing.

        Raises:
            TimeoutError: they were not free until then (of `time.monotonic`).
        """
        if not self._taken:
            self._stack.enter_context(_bodies.reserved(size, until=until))
            self._taken = True


def peak_bytes() -> int:
    """Return the most memory that this process held at once, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
