"""Memory that the threads of a process share: whoever needs much of it waits until there is room."""

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

FREE_BYTES = 1 << 20  # of a body that need no room: nearly all images of the web are smaller
_BODY_BYTES = 512_000_000


class Room:
    """So much of something for all threads of a process, in the order in which they ask.

    A thread that has room must not ask for more of the same: two could wait for each other forever.
    In a process that was forked all of it is free again: the threads that had some are not there.

    Args:
        size: in what unit one likes; who asks for more than all of it is alone with it.
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
    def taken(self, amount: int, *, until: float | None = None) -> Iterator[None]:
        """Wait for room, and have it for as long as the block runs.

        Args:
            until: how long to wait (of `time.monotonic`).

        Raises:
            TimeoutError: there was none until then.
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
            raise TimeoutError("no room in memory in time")

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


_bodies = Room(_BODY_BYTES)


class Share:
    """The room that one body has until its bytes have been looked at; used in a `with` block.

    It is taken once, for all that the body may come to need: two bodies that each had some and waited for
    the rest would wait until their deadlines.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._taken = False

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: Any) -> None:
        self._taken = False
        self._stack.close()

    def take(self, size: int, until: float) -> None:
        """Wait for room of so many bytes, once; later calls do nothing.

        Raises:
            TimeoutError: there was none until then (of `time.monotonic`).
        """
        if not self._taken:
            self._stack.enter_context(_bodies.taken(size, until=until))
            self._taken = True


def peak_bytes() -> int:
    """Return the most memory that this process held at once; macOS tells bytes where others tell KiB."""
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return told if sys.platform == "darwin" else told * 1024
