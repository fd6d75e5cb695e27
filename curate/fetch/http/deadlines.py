"""Deadlines that hold whatever a server does: overdue sockets are shut down from another thread.

A socket's own timeout begins anew with every byte, so a server that sends one now and then would keep a
thread for days, in the body, in the headers and in the handshake of TLS.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Watch:
    """One deadline (of `time.monotonic`), and the socket that is shut down when it has passed."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._keeper: Any = None

    @property
    def overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.left_s <= 0

    @property
    def left_s(self) -> float:
        """Seconds to the deadline; negative after it."""
        return self.deadline - time.monotonic()

    def hold(self, sock: socket.socket) -> None:
        """Watch this socket, in place of any before it."""
        self.release()
        with self._lock:
            # A file on the socket keeps its descriptor open, whoever closes the socket meanwhile. Else the
            # number could already be that of another thread's connection when it is shut down.
            self._keeper = sock.makefile("rb", buffering=0)
            self._sock = sock
        if self.overdue:
            self.shut_down()

    def release(self) -> None:
        """Let go of the socket. It is closed when its owner has closed it too."""
        with self._lock:
            self._sock = None
            keeper, self._keeper = self._keeper, None
        if keeper:
            keeper.close()

    def shut_down(self) -> None:
        """End whatever waits for the socket: it reads the end of the stream."""
        with self._lock:
            if self._sock is not None:
                with suppress(OSError):  # not connected yet, or no longer
                    # The plain socket's method: that of TLS would make the reader read on without TLS.
                    socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


class Reaper:
    """Shut down what is overdue, from one thread that runs while there is something to watch."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Watch]] = []
        self._count = itertools.count()  # breaks ties: watches have no order
        self._changed = threading.Condition()
        self._running = False

    @contextmanager
    def watch(self, deadline: float) -> Iterator[Watch]:
        """Give a watch with this deadline (of `time.monotonic`) for as long as the block runs."""
        watch = Watch(deadline)
        with self._changed:
            heapq.heappush(self._heap, (deadline, next(self._count), watch))
            if not self._running:
                threading.Thread(target=self._run, name="fetch deadlines", daemon=True).start()
                self._running = True
            elif self._heap[0][2] is watch:
                self._changed.notify()
        try:
            yield watch
        finally:
            watch.release()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._heap:
                    self._running = False
                    return
                left_s = self._heap[0][0] - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                watch = heapq.heappop(self._heap)[2]
            watch.shut_down()
