"""One URL to the bytes of an image, or to a reason to count by: attempts, waits, and what the bytes are."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from curate.fetch.http.connections import Client
from curate.fetch.http.hosts import ROBOTS_BYTES, RobotsFiles, Turns
from curate.fetch.limits import FetchLimits
from curate.io.image_headers import BadImage, NeedMore, extent, probe
from curate.io.images import TooLarge, decode
from curate.io.memory import Reservation
from curate.io.web.outcomes import Failure
from curate.rows.chance import SPAN, chance

_DECODED_PIXELS = 64  # of the short side are enough to see that all of a JPEG is there
_ROBOTS_DEADLINE_S = 15.0
_ROBOTS_WAIT_S = 5.0


class Fetcher:
    """Fetch URLs under limits, from as many threads as one likes; one for each process.

    Args:
        context: of TLS, for tests; else the system's certificates.
    """

    def __init__(self, limits: FetchLimits, *, context: ssl.SSLContext | None = None) -> None:
        self._limits = limits
        turns = Turns(limits.connections_per_host, limits.interval_s)
        client = partial(Client, turns=turns, context=context or _trusting_the_system())
        short = replace(
            limits,
            deadline_s=min(limits.deadline_s, _ROBOTS_DEADLINE_S),
            max_bytes=ROBOTS_BYTES,
            max_wait_s=min(limits.max_wait_s, _ROBOTS_WAIT_S),
            retries=min(limits.retries, 1),
            opt_outs=(),
        )
        robots_client = client(short)

        def ask(url: str) -> bytes:
            with Reservation() as share:
                return robots_client.get(url, share, cut=True)

        robots = RobotsFiles(lambda url: _with_retries(partial(ask, url), url, short), limits.token)
        self._client = client(limits, permit=robots.check if limits.robots else None)

    def fetch(self, url: str) -> bytes:
        """Return the bytes of the image at a URL, as they are there.

        What the server calls them does not matter; they are an image if they are one.

        Raises:
            Failure: with the reason; see `outcomes`.
        """
        return _with_retries(partial(self._attempt, url), url, self._limits)

    def _attempt(self, url: str) -> bytes:
        with Reservation() as share:  # until the image is decoded: bodies that wait for that are held too
            data = self._client.get(url, share)
            check(data, self._limits)
            return data


@cache
def _trusting_the_system() -> ssl.SSLContext:
    return ssl.create_default_context()  # 20 ms, and a few megabytes of certificates


def check(data: bytes, limits: FetchLimits) -> None:
    """Raise a Failure unless the bytes are an image that may be decoded, and can be.

    Raises:
        Failure: "empty", "not an image", "too many pixels" (before anything is decoded), "damaged image".
    """
    try:
        width, height = extent(data, probe(data))
        if width * height > limits.max_pixels:
            raise Failure("too many pixels", f"{width} x {height}")
        if limits.decode:
            decode(data, at_least=_DECODED_PIXELS)
    except NeedMore:
        raise Failure("damaged image", "the header has no end") from None
    except TooLarge as error:
        raise Failure("too many pixels", str(error)) from None
    except BadImage as error:
        message = str(error)
        if type(error.__cause__).__name__ == "DecompressionBombError":  # Pillow's, of the rarer kinds
            raise Failure("too many pixels", str(error.__cause__)) from None
        if message in ("empty", "not an image"):
            raise Failure(message) from None
        raise Failure("damaged image", message) from None


def _with_retries(attempt: Callable[[], bytes], url: str, limits: FetchLimits) -> bytes:
    """Try again where that may help in a moment, after the wait the server asks for or a growing one."""
    for failed in range(limits.retries + 1):
        try:
            return attempt()
        except Failure as failure:
            if not failure.again or failed == limits.retries:
                raise
            wait_s = max(_backoff_s(url, failed, limits), failure.retry_after_s or 0.0)
            if wait_s > limits.max_wait_s:
                raise
        time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def _backoff_s(url: str, failed: int, limits: FetchLimits) -> float:
    """Return the wait after so many failures: between a half and one and a half of its mean."""
    share = 0.5 + chance(url, failed, "fetch/backoff") / SPAN
    return min(limits.backoff_s * 2**failed * share, limits.max_wait_s)
