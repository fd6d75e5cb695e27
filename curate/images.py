"""What an image's first bytes say: its kind, width and height, without decoding it."""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

# Enough for the header of nearly every image; a JPEG with a large EXIF block needs more.
HEADER_BYTES = 4096
MAX_PIXELS = 178_956_970  # Pillow's own limit for a decompression bomb
EXTENSIONS = frozenset(
    {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jpe", "jfif", "ppm", "pgm"}
)


class Header(NamedTuple):
    """The kind of an image as its usual extension, and its width and height in pixels."""

    ext: str
    width: int
    height: int


class BadImage(ValueError):
    """Bytes that are no image we know; the message is a reason to count by ("empty", "not an image")."""


class NeedMore(Exception):
    """The header goes on past the bytes given."""


def probe(data: bytes) -> Header:
    """Return the header of an image from its first bytes.

    Raises:
        BadImage: "empty", "not an image", or "damaged header".
        NeedMore: the size stands beyond these bytes; give more, or all.
    """
    if not data:
        raise BadImage("empty")
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return Header("png", *struct.unpack(">II", data[16:24]))
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return Header("gif", *struct.unpack("<HH", data[6:10]))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        raise BadImage("damaged header") from None
    return _other(data)


def _jpeg(data: bytes) -> Header:
    at, end = 2, len(data)
    while at + 9 < end:
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF):  # garbage or padding, which decoders pass over
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Header("jpg", width, height)
        elif marker in (0xD8, 0x01) or 0xD0 <= marker <= 0xD7:  # stands alone
            at += 2
        elif marker in (0xD9, 0xDA):  # pixels or the end before any frame
            raise BadImage("damaged header")
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise NeedMore


def _webp(data: bytes) -> Header:
    form = data[12:16]
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if form == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if form == b"VP8X":
        width, wide, height, high = struct.unpack("<HBHB", data[24:30])  # two numbers of 24 bits, less one
        return Header("webp", (wide << 16 | width) + 1, (high << 16 | height) + 1)
    raise BadImage("damaged header")


def _other(data: bytes) -> Header:
    """Ask Pillow about the rarer kinds (BMP, TIFF, PPM)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("BMP", "TIFF", "PPM")) as image:
            kind = {"BMP": "bmp", "TIFF": "tiff", "PPM": "ppm"}[image.format or ""]
            return Header(kind, *image.size)
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        if len(data) == HEADER_BYTES and data[:4] in (b"II*\0", b"MM\0*"):
            raise NeedMore from None  # a TIFF's directory may stand at its end
        raise BadImage("not an image") from error


def decode(data: bytes, *, at_least: int | None = None):  # -> PIL.Image.Image
    """Decode an image wholly and return it as RGB; refuses bombs before decoding.

    Args:
        at_least: pixels of the short side that are enough; a JPEG twice as large is decoded at a smaller scale.

    Raises:
        BadImage: with the reason.
    """
    from PIL import Image

    try:
        try:
            header = probe(data)
        except NeedMore:
            raise BadImage("damaged header") from None
        if header.width * header.height > MAX_PIXELS:
            raise BadImage(f"{header.width} x {header.height} pixels is over the limit of {MAX_PIXELS}")
        with Image.open(io.BytesIO(data)) as image:
            if at_least is not None and min(header.width, header.height) >= 2 * at_least:
                image.draft(None, (at_least, at_least))  # a JPEG at a half, a quarter or an eighth
            return image.convert("RGB")
    except BadImage:
        raise
    except Exception as error:  # any decoder, any damage: one counted sample, never the run
        reason = "truncated" if "truncated" in str(error) else f"cannot be decoded: {error}"
        raise BadImage(reason) from error
