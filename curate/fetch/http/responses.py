"""What is read of a server's answer: may it be used, when to come again, and the body within its limits."""

from __future__ import annotations

import http.client
import io
import re
import zlib
from collections.abc import Callable
from datetime import datetime, timezone
from email.message import Message
from email.utils import parsedate_to_datetime

from curate.io.memory import FREE_BYTES
from curate.io.web.outcomes import Failure

_PIECE_BYTES = 1 << 16
_RETRIED = (429, 500, 502, 503, 504)
_PACKED = ("gzip", "x-gzip", "deflate")
_UNKNOWN_PACKED = ("br", "zstd", "compress", "x-compress", "dcb", "dcz")
_VALUED_DIRECTIVES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


def refusal(response: http.client.HTTPResponse) -> Failure:
    """Return the failure of a status that is no success, with whether and when to try again."""
    again = response.status in _RETRIED
    wait_s = _seconds(response.headers.get("Retry-After")) if again else None
    detail = "" if wait_s is None else f"asks to wait {wait_s:.0f} s"
    return Failure(f"http {response.status}", detail, again=again, retry_after_s=wait_s)


def _seconds(retry_after: str | None) -> float | None:
    """Return what a Retry-After says, a number or a date, in seconds from now; None where it is neither."""
    text = (retry_after or "").strip()
    if re.fullmatch("[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": the time is UTC
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - datetime.now(timezone.utc)).total_seconds())


def opted_out(headers: Message, token: str, opt_outs: tuple[str, ...]) -> bool:
    """Tell whether X-Robots-Tag forbids the use, to all or to `token`.

    `noai, otherbot: noindex, nofollow` forbids AI to all, and the other two to that robot.
    """
    for value in headers.get_all("X-Robots-Tag", []):
        agent = None
        for part in value.lower().split(","):
            head, colon, tail = (piece.strip() for piece in part.partition(":"))
            if colon and head not in _VALUED_DIRECTIVES:
                agent, head = head, tail
            if agent in (None, token) and head in opt_outs:
                return True
    return False


def read(
    response: http.client.HTTPResponse, max_bytes: int, *, cut: bool, room: Callable[[int], None]
) -> bytes:
    """Read a body and undo its encoding.

    Args:
        max_bytes: of the body as it is sent, and decompressed.
        cut: of a body that is larger return its beginning.
        room: waits for room for so many bytes; called before more than 1 MB is held, for all that may come.

    Raises:
        Failure: "too large", before reading where the headers say so; "truncated"; "bad encoding".
    """
    coding = _coding(response.headers)
    # Decompressed it is there as sent, in pieces, and as a whole.
    unpacked = 2 * max_bytes if coding else 0
    data = _sent(response, max_bytes, cut, lambda size: room(size + unpacked))
    return _unpacked(data, coding, max_bytes, cut, lambda: room(len(data) + unpacked)) if coding else data


def _sent(
    response: http.client.HTTPResponse, max_bytes: int, cut: bool, room: Callable[[int], None]
) -> bytes:
    announced = response.length  # None where it is chunked, or goes on to the end of the connection
    if announced is not None and announced > max_bytes and not cut:
        raise Failure("too large", f"{announced} bytes")
    body, size = io.BytesIO(), 0  # whose bytes are taken out of it without a copy
    while piece := response.read(min(_PIECE_BYTES, max_bytes + 1 - size)):
        size += len(piece)
        if size > max_bytes and not cut:
            raise Failure("too large", f"more than {max_bytes} bytes")
        if size > FREE_BYTES:
            room(max_bytes if announced is None else min(announced, max_bytes))
        body.write(piece)
        if size > max_bytes:
            return body.getvalue()[:max_bytes]
    if announced is not None and size < announced:
        raise Failure("truncated", f"{size} of {announced} bytes")
    return body.getvalue()


def _coding(headers: Message) -> str:
    """Return a Content-Encoding, of which we asked for none, if it is to be undone; else nothing.

    Words that name no encoding ("none", "utf-8", "image/jpeg") are passed over: the bytes decide.
    """
    coding = str(headers.get("Content-Encoding", "")).strip().lower()
    if coding in _UNKNOWN_PACKED or "," in coding:
        raise Failure("bad encoding", coding)
    return coding if coding in _PACKED else ""


def _unpacked(data: bytes, coding: str, max_bytes: int, cut: bool, room: Callable[[], None]) -> bytes:
    """Undo an encoding without making more than `max_bytes` of it."""
    if not data:
        return data
    try:
        unpacked, ended = _inflated(data, zlib.MAX_WBITS | 32, max_bytes + 1, room)
    except zlib.error as error:
        try:  # "deflate" is with a header by the standard, and without one by many servers
            unpacked, ended = _inflated(data, -zlib.MAX_WBITS, max_bytes + 1, room)
        except zlib.error:
            raise Failure("bad encoding", f"{coding}: {error}") from None
    if len(unpacked) > max_bytes and not cut:
        raise Failure("too large", f"more than {max_bytes} bytes, decompressed")
    if not ended and not cut:
        raise Failure("truncated", f"{coding} without its end")
    return unpacked[:max_bytes]


def _inflated(data: bytes, window: int, most: int, room: Callable[[], None]) -> tuple[bytes, bool]:
    """Decompress up to `most` bytes; also return whether that was all."""
    decoder = zlib.decompressobj(window)
    begin = decoder.decompress(data, min(most, FREE_BYTES))
    if decoder.eof or len(begin) == most or len(begin) < FREE_BYTES:
        return begin, decoder.eof
    room()
    return begin + decoder.decompress(decoder.unconsumed_tail, most - len(begin)), decoder.eof
