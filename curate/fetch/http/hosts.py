"""Politeness to hosts: how many connections at once, how soon after each other, and their robots.txt."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from curate.fetch.http.robots import ALLOW_ALL, Rules
from curate.io.web.addresses import Target
from curate.io.web.outcomes import Failure, lasting

ROBOTS_BYTES = 512_000  # of a robots.txt are read; RFC 9309 asks for so many at least
_KEPT_HOSTS = 50_000
_KEPT_BYTES = 256_000_000  # of rules, over all hosts
_FRESH_S = 86_400.0  # RFC 9309: not to be used for more than a day
_FAILED_FRESH_S = 300.0


class _Queue:
    """Those who wait for one host or talk to it."""

    def __init__(self, at_once: int) -> None:
        self.slots = threading.Semaphore(at_once)
        self.users = 0  # waiting or talking
        self.next_start = 0.0  # of time.monotonic


class Turns:
    """Who may talk to a host when: so many at once, and so long after the start before."""

    def __init__(self, at_once: int, interval_s: float) -> None:
        self._at_once = at_once
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}
        self._idle: deque[tuple[float, str]] = deque()  # hosts nobody uses, with when their interval is over

    def __len__(self) -> int:
        return len(self._queues)

    @contextmanager
    def turn(self, host: str) -> Iterator[None]:
        """Wait for a turn at the host, and have it for as long as the block runs.

        A thread has one turn at a time: two that wait for each other's host would wait forever.
        """
        queue = self._join(host)
        try:
            with queue.slots:
                wait_s = self._start(queue) - time.monotonic()
                if wait_s > 0:
                    time.sleep(wait_s)
                yield
        finally:
            self._leave(host, queue)

    def _join(self, host: str) -> _Queue:
        with self._lock:
            self._sweep()
            queue = self._queues.get(host)
            if queue is None:
                queue = self._queues[host] = _Queue(self._at_once)
            queue.users += 1
            return queue

    def _start(self, queue: _Queue) -> float:
        """Take the next start at the host, and return when it is."""
        with self._lock:
            start = max(time.monotonic(), queue.next_start)
            queue.next_start = start + self._interval_s
            return start

    def _leave(self, host: str, queue: _Queue) -> None:
        with self._lock:
            queue.users -= 1
            if not queue.users:
                self._idle.append((queue.next_start, host))
            self._sweep()

    def _sweep(self) -> None:
        """Forget hosts that nobody uses and whose interval is over."""
        now = time.monotonic()
        while self._idle and self._idle[0][0] <= now:
            host = self._idle.popleft()[1]
            queue = self._queues.get(host)
            if queue and not queue.users and queue.next_start <= now:
                del self._queues[host]


class _Entry:
    """What is known of one origin's robots.txt; its lock is held while it is fetched."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rules = ALLOW_ALL
        self.failure: Failure | None = None
        self.until = 0.0  # of time.monotonic


class RobotsFiles:
    """The robots.txt of hosts, each fetched once by whoever comes first while others of that host wait.

    By RFC 9309 a file that is not there (4xx) allows all, and one that cannot be had (5xx, 429, no
    connection) forbids all. Then a row gets that failure and not "robots.txt", which would last, and the
    host is asked again after five minutes.

    Args:
        get: returns the first 500 KiB of a URL, or raises a Failure.
        token: our name in those files, in lower case.
    """

    def __init__(self, get: Callable[[str], bytes], token: str) -> None:
        self._get = get
        self._token = token
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the one longest unused first
        self._bytes = 0

    def check(self, target: Target) -> None:
        """Raise a Failure if the target may not be fetched: "robots.txt", or why that file cannot be had."""
        entry = self._entry(target.origin)
        with entry.lock:
            if entry.until <= time.monotonic():
                self._load(entry, target.origin)
        if entry.failure:
            # A new one for each row: an exception that many threads raise collects all their tracebacks.
            raise Failure(entry.failure.reason, f"robots.txt: {entry.failure.detail}")
        if not entry.rules.allow(target.path):
            raise Failure("robots.txt")

    def _entry(self, origin: str) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(origin, _Entry())
            self._entries.move_to_end(origin)
            while len(self._entries) > _KEPT_HOSTS or (self._bytes > _KEPT_BYTES and len(self._entries) > 1):
                self._bytes -= self._entries.popitem(last=False)[1].rules.bytes
            return entry

    def _load(self, entry: _Entry, origin: str) -> None:
        rules, entry.failure = ALLOW_ALL, None
        try:
            rules = Rules.parse(_whole_lines(self._get(f"{origin}/robots.txt")), self._token)
        except Failure as failure:
            # A redirect to nowhere we go is as good as no file; the host's own refusals the row will meet.
            if not lasting(failure.reason) or failure.reason in ("no such host", "tls"):
                entry.failure = Failure(failure.reason, failure.detail)  # without its traceback
        with self._lock:
            if self._entries.get(origin) is entry:  # else it was dropped meanwhile, and its rules counted out
                self._bytes += rules.bytes - entry.rules.bytes
            entry.rules = rules
        entry.until = time.monotonic() + (_FAILED_FRESH_S if entry.failure else _FRESH_S)


def _whole_lines(data: bytes) -> str:
    """Return the text of a robots.txt; a line that was cut in half says something else, and is left out."""
    if len(data) >= ROBOTS_BYTES:
        data = data[: 1 + max(data.rfind(b"\n"), data.rfind(b"\r"))]
    return data.decode("utf-8", "surrogateescape")  # octets that are no UTF-8 are compared as octets
