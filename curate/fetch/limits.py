"""What a fetch may cost and whom it may ask: the limits that every transfer is held to."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version

from curate.errors import RecipeError
from curate.io.images import MAX_PIXELS

_POSITIVE = ("timeout_s", "deadline_s", "max_bytes", "max_pixels", "connections_per_host")
_MOST = {"max_bytes": 2**40, "max_pixels": 2**40}
_MOST_OF_OTHERS = 1_000_000  # seconds (eleven days), connections, attempts
_NOT_NEGATIVE = ("max_redirects", "retries", "backoff_s", "max_wait_s", "interval_s")


def _user_agent() -> str:
    return f"curate-train/{version('curate-train')}"


@dataclass(frozen=True)
class FetchLimits:
    """The limits of fetching; `dataclasses.asdict` of them is JSON, and `FetchLimits(**those)` the same again.

    Certificates are always verified, and proxies that the environment names are not used: the address
    that is connected to would be the proxy's, and what it fetches could not be checked.

    Args:
        timeout_s: the wait for a connection to one address, and for each next byte.
        deadline_s: the whole of one attempt, redirects included, without the wait for a host's turn. Only the
            name server may take longer, by its own limit (usually 10 s).
        max_bytes: of a body, as sent and as decompressed. The bodies of more than 1 MB that a process holds at once
            have 512 MB in all: each waits for its room, within its deadline.
        max_pixels: width times height, read before anything is decoded; of a GIF, of its first frame if that is larger.
        max_redirects: how many are followed; each is checked like a URL of the table.
        retries: further attempts after 429, 500, 502, 503, 504, a reset, or no connection in time.
        backoff_s: the wait before the first retry; it doubles with each, and differs by half from URL to URL.
        max_wait_s: the longest Retry-After that is waited for; after a longer one the URL is given up.
        connections_per_host: at once, in one process; browsers take 6.
        interval_s: between two starts at the same host, in one process.
        robots: ask each host's robots.txt first, and obey it.
        opt_outs: directives of X-Robots-Tag, any of which forbids the use.
        loopback: allow 127.0.0.0/8 and ::1, for tests; no other private address.
        user_agent: what servers are told; what stands before the slash is the name in robots.txt.
        decode: decode each image, a JPEG at a small scale, so that truncated ones are found.
    """

    timeout_s: float = 10.0
    deadline_s: float = 60.0
    max_bytes: int = 20_000_000
    max_pixels: int = MAX_PIXELS
    max_redirects: int = 5
    retries: int = 2
    backoff_s: float = 1.0
    max_wait_s: float = 30.0
    connections_per_host: int = 4
    interval_s: float = 0.0
    robots: bool = True
    opt_outs: tuple[str, ...] = ("noai", "noimageai", "noindex", "noimageindex")
    loopback: bool = False
    user_agent: str = field(default_factory=_user_agent)
    decode: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "opt_outs", tuple(word.lower() for word in self.opt_outs))
        for name in (*_POSITIVE, *_NOT_NEGATIVE):
            value = getattr(self, name)
            least = "more than zero" if name in _POSITIVE else "zero or more"
            # Written so that what is no number fails too.
            if not (0 <= value <= _MOST.get(name, _MOST_OF_OTHERS)) or (value == 0 and name in _POSITIVE):
                most = _MOST.get(name, _MOST_OF_OTHERS)
                raise RecipeError(f"{name} is {value!r}", hint=f"give {least}, and {most:,} at most")
        wrong = [c for c in self.user_agent if not c.isprintable() or ord(c) > 0xFF]
        if wrong:
            raise RecipeError(
                f"no user agent: {self.user_agent!r} holds {wrong[0]!r}, which no header may",
                hint="give printable characters of Latin-1, such as my-tool/1.0",
            )
        if not self.token:
            raise RecipeError(f"no user agent: {self.user_agent!r}", hint="give a name, such as my-tool/1.0")

    @property
    def token(self) -> str:
        """The name by which robots.txt and X-Robots-Tag call us, in lower case."""
        return self.user_agent.split("/", 1)[0].strip().lower()
