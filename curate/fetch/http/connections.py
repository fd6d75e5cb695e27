"""One request after another until there are bytes: connections to checked addresses, and redirects by hand."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from curate.fetch.http.deadlines import Reaper, Watch
from curate.fetch.http.hosts import Turns
from curate.fetch.http.responses import opted_out, read, refusal
from curate.fetch.limits import Guards
from curate.io.memory import Reservation
from curate.io.web.addresses import Address, Target, joined, resolve, split
from curate.io.web.outcomes import Failure

_REDIRECTS = (301, 302, 303, 307, 308)
_SUCCESSES = (200, 203)  # 203: a proxy on the way has changed it


class Connection(http.client.HTTPConnection):
    """A connection to one of these addresses; the host's name is only told, and never resolved again.

    Args:
        context: of TLS; None for plain http.
    """

    def __init__(
        self,
        target: Target,
        addresses: list[Address],
        watch: Watch,
        timeout_s: float,
        context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(target.host, target.port)
        self._target = target
        self._addresses = addresses
        self._watch = watch
        self._timeout_s = timeout_s
        self._context = context

    def connect(self) -> None:
        """Connect to the first address that answers, and shake hands."""
        self.sock = self._opened()
        if self._context is None:
            self._watch.hold(self.sock)
            return
        self.sock = self._context.wrap_socket(
            self.sock, server_hostname=self._target.host.rstrip("."), do_handshake_on_connect=False
        )
        self._watch.hold(self.sock)
        try:
            self.sock.do_handshake()
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise  # the connection broke, which says nothing of TLS
        except ssl.SSLCertVerificationError as error:
            raise Failure("tls", error.verify_message) from None
        except ssl.SSLError as error:
            raise Failure("tls", error.reason or str(error)) from None

    def ask(self, user_agent: str) -> http.client.HTTPResponse:
        """Send the request, and return the answer up to its headers."""
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
                sock.settimeout(max(min(self._timeout_s, self._watch.left_s), 0.001))
                sock.connect(place)
                sock.settimeout(self._timeout_s)
                return sock
            except OSError as error:
                sock.close()
                failure = error
        if isinstance(failure, TimeoutError):
            raise Failure("timeout", "no connection in time", again=True) from None
        assert failure is not None, "a target without addresses"
        raise failure


class Client:
    """GET requests under guards; used by many threads at once.

    Args:
        permit: called with each target, redirects included, before it is asked; raises a Failure to refuse.
    """

    def __init__(
        self,
        guards: Guards,
        *,
        turns: Turns,
        reaper: Reaper,
        context: ssl.SSLContext,
        permit: Callable[[Target], None] | None = None,
    ) -> None:
        self._guards = guards
        self._turns = turns
        self._reaper = reaper
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
        left_s = self._guards.deadline_s
        for _ in range(self._guards.max_redirects + 1):
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
        raise Failure("too many redirects", f"more than {self._guards.max_redirects}")

    def _hop(
        self, target: Target, deadline: float, share: Reservation, cut: bool
    ) -> tuple[bytes, str | None]:
        """Ask one server; return the body, or nothing and where else to ask."""
        guards = self._guards
        context = self._context if target.scheme == "https" else None
        with self._reaper.watch(deadline) as watch, _told(watch, guards):
            addresses = resolve(target, loopback=guards.loopback)
            with (
                closing(Connection(target, addresses, watch, guards.timeout_s, context)) as connection,
                connection.ask(guards.user_agent) as response,
            ):
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location is not None:
                    return b"", location
                if response.status not in _SUCCESSES:
                    raise refusal(response)
                if opted_out(response.headers, guards.token, guards.opt_outs):
                    raise Failure("opted out", ", ".join(response.headers.get_all("X-Robots-Tag", [])))
                room = partial(share.take, until=deadline)
                return read(response, guards.max_bytes, cut=cut, room=room), None


@contextmanager
def _told(watch: Watch, guards: Guards) -> Iterator[None]:
    """Make a Failure of whatever a transfer raises, and of one that ended by its deadline."""
    late = f"not done in {guards.deadline_s:g} s"
    try:
        yield
    except (Failure, OSError, http.client.HTTPException) as error:
        if watch.overdue:
            raise Failure("timeout", late) from None
        if isinstance(error, Failure):
            raise
        raise _failure(error, guards) from None
    if watch.overdue:  # the end of the body may have been the end of our patience
        raise Failure("timeout", late)


def _failure(error: Exception, guards: Guards) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure("timeout", f"no byte in {guards.timeout_s:g} s")
    if isinstance(error, http.client.IncompleteRead):
        return Failure("truncated", "the connection ended in the middle of the body")
    if isinstance(error, OSError):  # includes http.client's RemoteDisconnected
        lost = isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError))
        return Failure("connection failed", error.strerror or str(error), again=lost)
    return Failure("bad answer", f"{type(error).__name__}: {error}")
