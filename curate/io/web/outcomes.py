"""What became of a row of a URL table: one of a few reasons, each of which may pass with time or lasts."""

from __future__ import annotations

import re
from typing import NamedTuple

OK = "ok"
_DETAIL_CHARACTERS = 200  # details come in part from strangers: one short line of them is kept


class OutcomeKind(NamedTuple):
    """What a reason means, and whether it lasts: whether trying again another day would hardly help."""

    meaning: str
    lasting: bool


# Beside these there is "http NNN" for every status that is no success.
OUTCOMES = {
    OK: OutcomeKind("the bytes are there, and are an image", True),
    "timeout": OutcomeKind(
        "no connection or no byte within the wait, or the whole transfer took too long", False
    ),
    "connection failed": OutcomeKind("refused, reset, unreachable, or the name server did not answer", False),
    "truncated": OutcomeKind("fewer bytes than were announced", False),
    "hung": OutcomeKind("the row was given up from outside", False),
    "no record": OutcomeKind("nothing was written about the row", False),
    "other": OutcomeKind("a message that is none of these", False),
    "no such host": OutcomeKind("the name has no address", True),
    "tls": OutcomeKind("the certificate is not valid for the name, or no common protocol", True),
    "bad answer": OutcomeKind("what was answered is not HTTP", True),
    "bad encoding": OutcomeKind("a Content-Encoding that was not asked for and cannot be undone", True),
    "empty": OutcomeKind("an answer without a byte", True),
    "not an image": OutcomeKind("the bytes are of no kind of image that is known", True),
    "damaged image": OutcomeKind("an image by its first bytes, which does not decode", True),
    "too large": OutcomeKind("more bytes than are fetched", True),
    "too many pixels": OutcomeKind("more pixels than are decoded", True),
    "hash mismatch": OutcomeKind("the bytes are not those that the table names", True),
    "opted out": OutcomeKind("X-Robots-Tag forbids the use", True),
    "robots.txt": OutcomeKind("the host's robots.txt forbids the path", True),
    "refused address": OutcomeKind("the host, or where it redirects to, is not on the public internet", True),
    "refused scheme": OutcomeKind("neither http nor https", True),
    "bad url": OutcomeKind("no URL of a host", True),
    "too many redirects": OutcomeKind("redirected more often than is followed", True),
}
_PASSING_STATUSES = frozenset({408, 425, 429})  # and all 5xx
_HTTP = re.compile(r"http ([1-9]\d\d)")


class Failure(Exception):
    """A URL that came to no image: a reason to count by, and what exactly happened.

    Args:
        again: a second attempt in a moment may succeed.
        retry_after_s: how long the server asks to wait before it.
    """

    def __init__(
        self, reason: str, detail: str = "", *, again: bool = False, retry_after_s: float | None = None
    ) -> None:
        assert _known(reason), reason
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = "".join(c if c.isprintable() else " " for c in detail)[:_DETAIL_CHARACTERS].strip()
        self.again = again
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def reason_of(text: str) -> str:
    """Return the reason of a failure that was written as text; "other" where it is none of ours."""
    reason = text.split(": ", 1)[0]
    return reason if _known(reason) else "other"


def lasting(reason: str) -> bool:
    """Tell whether trying again another day would hardly help.

    A name without an address lasts: a name server that is only busy counts as "connection failed".
    """
    status = _HTTP.fullmatch(reason)
    if status:
        return int(status[1]) not in _PASSING_STATUSES and int(status[1]) < 500
    return OUTCOMES[reason].lasting


def _known(reason: str) -> bool:
    return reason in OUTCOMES or _HTTP.fullmatch(reason) is not None
