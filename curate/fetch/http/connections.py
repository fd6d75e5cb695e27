"""One request after another until there are bytes: connections to checked addresses, and redirects by hand."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from curate.fetch.http.hosts import Turns
from curate.fetch.http.responses import opted_out, read, refusal
from curate.fetch.limits import FetchLimits
from curate.io.memory import Reservation
from curate.io.web.addresses import Address, Target, joined, resolve, split
from curate.io.web.outcomes import Failure

_REDIRECTS = (301, 302, 303, 307, 308)
_SUCCESSES = (200, 203)  # 203: a proxy on the way has changed it


@dataclass(frozen=True)
class Deadline:
    """When a transfer ends, and how long it waits for a byte.

    A socket's own timeout begins anew with every byte, so a server that sends one now and then would keep a
    thread for days: before each call that waits it is set to what is left.

    Args:
        at: of `time.monotonic`.
        timeout_s: the wait for a connection, and for each next byte.
    """

    at: float
    timeout_s: float

    @property
    def overdue(self) -> bool:
        """Whether the deadline has passed."""
        return self.at <= time.monotonic()

    def limit(self, sock: socket.socket) -> None:
        """Let the next call of a socket wait no longer than is left.

        Raises:
            TimeoutError: nothing is.
        """
        left_s = self.at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        sock.settimeout(min(self.timeout_s, left_s))


class DeadlineReader(io.RawIOBase):
    """What comes from a socket until a deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._stream = sock.makefile("rb", buffering=0)  # open after the socket's owner has closed it

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read some bytes, or none at the end of the stream."""
        self._deadline.limit(self._sock)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        """Let go of the socket."""
        self._stream.close()
        super().close()


class Connection(http.client.HTTPConnection):
    """A connection to one of these addresses; the host's name is only told, and never resolved again.

    Args:
        context: of TLS; None for plain http.
    """

    def __init__(
        self,
        target: Target,
        addresses: list[Address],
        deadline: Deadline,
        context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(target.host, target.port)
        self._target = target
        self._addresses = addresses
        self._deadline = deadline
        self._context = context

    def connect(self) -> None:
        """Connect to the first address that answers, and shake hands."""
        self.sock = self._opened()
        if self._context is not None:
            self._shake_hands(self._context)
        self._deadline.limit(self.sock)  # the request

    def _shake_hands(self, context: ssl.SSLContext) -> None:
        self.sock = context.wrap_socket(
            self.sock, server_hostname=self._target.host.rstrip("."), do_handshake_on_connect=False
        )
        try:
            self._deadline.limit(self.sock)
            self.sock.do_handshake()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise  # the connection broke, which says nothing of TLS
        except ssl.SSLCertVerificationError as error:
            raise Failure("tls", error.verify_message) from None
        except ssl.SSLError as error:
            raise Failure("tls", error.reason or str(error)) from None

    def response_class(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """Return a response that is read until the deadline."""
        response = http.client.HTTPResponse(sock, **options)
        response.fp.close()
        response.fp = io.BufferedReader(DeadlineReader(sock, self._deadline))
        return response

    def request_image(self, user_agent: str) -> http.client.HTTPResponse:
        """Send the request, and return the response, read up to the end of its headers."""
        self.putrequest("GET", self._target.path, skip_host=True, skip_accept_encoding=True)
        self.putheader("Host", self._target.netloc)
        self.putheader("User-Agent", user_agent)
        self.putheader("Accept", "image/*,*/*;q=0.5")
        self.putheader("Accept-Encoding", "identity")
        self.putheader("Connection", "close")
        self.endheaders()
        return self.getresponse()

    def _opened(self) -> socket.socket:
        failure: OSError | None = None
        for family, place in self._addresses:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._deadline.limit(sock)
                sock.connect(place)
                return sock
            except OSError as error:
                sock.close()
                failure = error
        if isinstance(failure, TimeoutError):
            raise Failure("timeout", "no connection in time", again=True) from None
        assert failure is not None, "a target without addresses"
        raise failure


class Client:
    """GET requests under limits; used by many threads at once.

    Args:
        permit: called with each target, redirects included, before it is asked; raises a Failure to refuse.
    """

    def __init__(
        self,
        limits: FetchLimits,
        *,
        turns: Turns,
        context: ssl.SSLContext,
        permit: Callable[[Target], None] | None = None,
    ) -> None:
        self._limits = limits
        self._turns = turns
        self._context = context
        self._permit = permit

    def get(self, url: str, share: Reservation, *, cut: bool = False) -> bytes:
        """Return the body of a URL, decompressed, in one attempt.

        Args:
            share: gets the room in memory that a large body needs.
            cut: of a body that is too large return its beginning.

        Raises:
            Failure: with the reason.
        """
        left_s = self._limits.deadline_s
        for _ in range(self._limits.max_redirects + 1):
            target = split(url)
            if self._permit:
                self._permit(target)
            with self._turns.turn(target.host):
                begin = time.monotonic()
                body, location = self._hop(target, begin + left_s, share, cut)
                left_s -= time.monotonic() - begin
            if location is None:
                return body
            url = joined(target, location)
        raise Failure("too many redirects", f"more than {self._limits.max_redirects}")

    def _hop(self, target: Target, until: float, share: Reservation, cut: bool) -> tuple[bytes, str | None]:
        """Ask one server; return the body, or nothing and where else to ask."""
        limits = self._limits
        context = self._context if target.scheme == "https" else None
        deadline = Deadline(until, limits.timeout_s)
        with _failures(deadline, limits):
            addresses = resolve(target, loopback=limits.loopback)
            with (
                closing(Connection(target, addresses, deadline, context)) as connection,
                connection.request_image(limits.user_agent) as response,
            ):
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location is not None:
                    return b"", location
                if response.status not in _SUCCESSES:
                    raise refusal(response)
                if opted_out(response.headers, limits.token, limits.opt_outs):
                    raise Failure("opted out", ", ".join(response.headers.get_all("X-Robots-Tag", [])))
                room = partial(share.take, until=until)
                return read(response, limits.max_bytes, cut=cut, room=room), None


@contextmanager
def _failures(deadline: Deadline, limits: FetchLimits) -> Iterator[None]:
    """Make a Failure of whatever a transfer raises, and of one that ended by its deadline."""
    late = f"not done in {limits.deadline_s:g} s"
    try:
        yield
    except (Failure, OSError, http.client.HTTPException) as error:
        if deadline.overdue:
            raise Failure("timeout", late) from None
        if isinstance(error, Failure):
            raise
        raise _failure(error, limits) from None
    if deadline.overdue:  # the end of the body may have been the end of our patience
        raise Failure("timeout", late)


def _failure(error: Exception, limits: FetchLimits) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure("timeout", f"no byte in {limits.timeout_s:g} s")
    if isinstance(error, http.client.IncompleteRead):
        return Failure("truncated", "the connection ended in the middle of the body")
    if isinstance(error, OSError):  # includes http.client's RemoteDisconnected
        lost = isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError))
        return Failure("connection failed", error.strerror or str(error), again=lost)
    return Failure("bad answer", f"{type(error).__name__}: {error}")
