"""What an image's first bytes say: its kind, width and height, without decoding it; and decoding."""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, NamedTuple

# Enough for the header of nearly every image; a JPEG with a large EXIF block needs more.
HEADER_BYTES = 4096
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: 0.36 GB, and as much again while it is made RGB
LARGE_PIXELS = (
    1 << 24
)  # images above are decoded one at a time, so that memory does not grow with the threads
EXTENSIONS = frozenset(
    {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jpe", "jfif", "ppm", "pgm"}
)


_FORMATS = {
    "jpg": "JPEG",
    "png": "PNG",
    "gif": "GIF",
    "webp": "WEBP",
    "bmp": "BMP",
    "tiff": "TIFF",
    "ppm": "PPM",
}
_large = threading.Lock()


class Header(NamedTuple):
    """The kind of an image as its usual extension, and its width and height in pixels."""

    ext: str
    width: int
    height: int


class BadImage(ValueError):
    """Bytes that are no image we know; the message is a reason to count by ("empty", "not an image")."""


class TooLarge(BadImage):
    """An image of more pixels than are decoded."""


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
    try:
        with _pillow().open(io.BytesIO(data), formats=("BMP", "TIFF", "PPM")) as image:
            kind = {"BMP": "bmp", "TIFF": "tiff", "PPM": "ppm"}[image.format or ""]
            return Header(kind, *image.size)
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        if len(data) == HEADER_BYTES and data[:4] in (b"II*\0", b"MM\0*"):
            raise NeedMore from None  # a TIFF's directory may stand at its end
        raise BadImage("not an image") from error


@cache
def _pillow() -> Any:
    """Import Pillow, and keep it from stderr: an image is taken, or it is refused with its name and reason."""
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # the TIFF library writes there itself, past Python
        library = ctypes.CDLL(Image.core.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    return Image


def decode(data: bytes, *, at_least: int | None = None):  # -> PIL.Image.Image
    """Decode an image wholly and return it as RGB; refuses bombs before decoding.

    Args:
        at_least: pixels of the short side that are enough; a JPEG twice as large is decoded at a smaller scale.

    Raises:
        BadImage: with the reason.
    """
    with _opened(data) as (header, image):
        if at_least is not None and min(header.width, header.height) >= 2 * at_least:
            image.draft(None, (at_least, at_least))  # a JPEG at a half, a quarter or an eighth
        decoded = image.convert("RGB")
        if header.ext == "gif" and decoded.size != header[1:]:  # a frame larger than the screen
            decoded = decoded.crop((0, 0, header.width, header.height))
        return decoded


def oddities(data: bytes) -> list[str]:
    """Decode an image wholly and return what is unusual about it: "animated", "CMYK", "16 bits a channel".

    Raises:
        BadImage: with the reason.
    """
    with _opened(data) as (header, image):
        found = ["animated"] if getattr(image, "is_animated", False) else []
        if image.mode == "CMYK":
            found.append("CMYK")
        if image.mode.startswith("I") or (header.ext == "png" and data[24] == 16):
            found.append("16 bits a channel")
        image.load()
        return found


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Header, Any]]:
    """Open an image that may be decoded; whatever goes wrong inside is a BadImage."""
    Image = _pillow()
    try:
        try:
            header = probe(data)
        except NeedMore:
            raise BadImage("damaged header") from None
        pixels = header.width * header.height
        if pixels > MAX_PIXELS:
            raise TooLarge(f"{header.width} x {header.height} pixels is over the limit of {MAX_PIXELS}")
        alone = _large if pixels > LARGE_PIXELS else nullcontext()
        with alone, Image.open(io.BytesIO(data), formats=(_FORMATS[header.ext],)) as image:
            yield header, image
    except BadImage:
        raise
    except Exception as error:  # any decoder, any damage: one counted sample, never the run
        if isinstance(error, Image.DecompressionBombError):
            raise TooLarge(str(error)) from error
        # The error of a file that is not identified holds an address, which is another one each time.
        told = (
            "damaged header"
            if isinstance(error, Image.UnidentifiedImageError)
            else f"cannot be decoded: {error}"
        )
        raise BadImage("truncated" if "truncated" in told.lower() else told) from error
