"""What is read of a server's answer: may it be used, when to come again, and the body within its limits."""

from __future__ import annotations

import http.client
import re
import zlib
from datetime import datetime, timezone
from email.message import Message
from email.utils import parsedate_to_datetime

from curate.fetch.outcomes import Failure

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


def read(response: http.client.HTTPResponse, max_bytes: int, *, cut: bool) -> bytes:
    """Read a body and undo its encoding.

    Args:
        max_bytes: of the body as it is sent, and decompressed.
        cut: of a body that is larger return its beginning.

    Raises:
        Failure: "too large", before reading where the headers say so; "truncated"; "bad encoding".
    """
    return _unpacked(_sent(response, max_bytes, cut), response.headers, max_bytes, cut)


def _sent(response: http.client.HTTPResponse, max_bytes: int, cut: bool) -> bytes:
    announced = response.length  # None where it is chunked, or goes on to the end of the connection
    if announced is not None and announced > max_bytes and not cut:
        raise Failure("too large", f"{announced} bytes")
    pieces, size = [], 0
    while piece := response.read(min(_PIECE_BYTES, max_bytes + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            if cut:
                return b"".join(pieces)[:max_bytes]
            raise Failure("too large", f"more than {max_bytes} bytes")
    if announced is not None and size < announced:
        raise Failure("truncated", f"{size} of {announced} bytes")
    return b"".join(pieces)


def _unpacked(data: bytes, headers: Message, max_bytes: int, cut: bool) -> bytes:
    """Undo a Content-Encoding, of which we asked for none, without making more than `max_bytes` of it.

    Words that name no encoding ("none", "utf-8", "image/jpeg") are passed over: the bytes decide.
    """
    coding = str(headers.get("Content-Encoding", "")).strip().lower()
    if coding in _UNKNOWN_PACKED or "," in coding:
        raise Failure("bad encoding", coding)
    if coding not in _PACKED or not data:
        return data
    try:
        unpacked, ended = _inflated(data, zlib.MAX_WBITS | 32, max_bytes + 1)
    except zlib.error as error:
        try:  # "deflate" is with a header by the standard, and without one by many servers
            unpacked, ended = _inflated(data, -zlib.MAX_WBITS, max_bytes + 1)
        except zlib.error:
            raise Failure("bad encoding", f"{coding}: {error}") from None
    if len(unpacked) > max_bytes and not cut:
        raise Failure("too large", f"more than {max_bytes} bytes, decompressed")
    if not ended and not cut:
        raise Failure("truncated", f"{coding} without its end")
    return unpacked[:max_bytes]


def _inflated(data: bytes, window: int, most: int) -> tuple[bytes, bool]:
    """Decompress up to `most` bytes; also return whether that was all."""
    decoder = zlib.decompressobj(window)
    return decoder.decompress(data, most), decoder.eof
