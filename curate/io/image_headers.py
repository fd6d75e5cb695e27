"""Headers of images: kind, width and height from the first bytes, without decoding."""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import warnings
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from curate.io.pixels import refusal_of, size_of, tiff_refusal

# Enough for the header of nearly every image; a JPEG with a large EXIF block needs more.
HEADER_BYTES = 4096
EXTENSIONS = frozenset(
    {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jpe", "jfif", "ppm", "pgm"}
)

_SIDES = range(1, 1 << 31)  # that a manifest can hold
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # the markers of a JPEG's frame
_SEQUENTIAL = (0xC0, 0xC1)
_SCAN = 0xDA
# The types of a TIFF's numbers.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 16: "Q", 17: "Q"}
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two of BigTIFFs
_MOST_BLOCKS = 1 << 16  # of a GIF before its first frame: 16 MB where they are full


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

    Width and height are those of the pixels as they are stored, whatever orientation the file names.

    Raises:
        BadImage: "empty", "not an image", "damaged header", "a side of 0 pixels", "a side of 2^31 pixels or more", or
            "no 8-bit pixels (…)" for what is not decoded, such as float.
        NeedMore: the size stands beyond these bytes; give more, or all.
    """
    if not data:
        raise BadImage("empty")
    header = _header(data)
    if header.width not in _SIDES or header.height not in _SIDES:
        zero = min(header.width, header.height) < 1
        raise BadImage(f"a side of {'0 pixels' if zero else '2^31 pixels or more'}")
    return header


def _header(data: bytes) -> Header:
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
    at = _segment(data, 2, _FRAMES)
    bits, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
    if bits != 8:
        raise BadImage("no 8-bit pixels (12-bit JPEG)" if bits == 12 else "damaged header")
    return Header("jpg", width, height)


def _segment(data: bytes, at: int, sought: frozenset[int]) -> int:
    """Return where the first of these segments of a JPEG begins, from a segment's beginning on."""
    end = len(data)
    while at + 9 < end:
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF):  # garbage or padding, which decoders pass over
            at = data.find(b"\xff", at + 1)
            if at < 0:
                break
        elif marker in sought:
            return at
        elif marker in (0xD8, 0x01) or 0xD0 <= marker <= 0xD7:  # stands alone
            at += 2
        elif marker in (0xD9, _SCAN):  # pixels or the end before any frame
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
    tiff = data[:4] in _TIFFS
    try:
        with pillow().open(io.BytesIO(data), formats=("BMP", "TIFF", "PPM")) as image:
            kind = {"BMP": "bmp", "TIFF": "tiff", "PPM": "ppm"}[image.format or ""]
            header, refused = Header(kind, *size_of(image)), refusal_of(image)
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        if len(data) == HEADER_BYTES and tiff:
            raise NeedMore from None  # a TIFF's directory may stand at its end
        found = _tiff_numbers(data, (258, 339)) if tiff else {}
        raise BadImage(tiff_refusal(found.get(339, ()), found.get(258, ())) or "not an image") from error
    if refused:
        raise BadImage(refused)
    return header


@cache
def pillow() -> Any:
    """Import Pillow and keep it silent: a fault of an image is an error with a reason, not a line on stderr."""
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # the TIFF library writes there itself, past Python
        library = ctypes.CDLL(Image.core.__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
    return Image


def extent(data: bytes, header: Header) -> tuple[int, int]:
    """Return the width and height that decoding makes room for, from all of the bytes.

    They are the header's, but for a GIF whose first frame goes beyond the screen, and a TIFF in tiles larger
    than itself.

    Raises:
        BadImage: "damaged header": a GIF of blocks without end.
    """
    if header.ext == "gif":
        return _frame(data, header)
    if header.ext == "tiff":
        return max((header.width, header.height), _tile(data), key=lambda size: size[0] * size[1])
    return header.width, header.height


def _frame(data: bytes, header: Header) -> tuple[int, int]:
    """Walk to a GIF's first frame, and return the size of the screen that holds both.

    The steps are Pillow's, which always reads two blocks of an extension, even where the first is its end.
    """
    try:
        at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)  # after the palette
        length = 0  # of the block before, in an extension
        for _ in range(_MOST_BLOCKS):
            if length:
                at, length = _block(data, at)
            elif data[at] == 0x2C:
                x, y, width, height = struct.unpack_from("<4H", data, at + 1)
                return max(header.width, x + width), max(header.height, y + height)
            elif data[at] == 0x3B:
                break
            elif data[at] == 0x21:
                kind, begin = data[at + 1], at + 3
                at, length = _block(data, at + 2)
                if kind == 0xFF and length >= 11 and data.startswith(b"NETSCAPE2.0", begin):
                    at, length = _block(data, at)
                if kind != 0xFE:
                    at, length = _block(data, at)
            else:
                at += 1
        else:
            raise BadImage("damaged header")
    except (IndexError, struct.error):
        pass  # it ends before any frame
    return header.width, header.height


def _block(data: bytes, at: int) -> tuple[int, int]:
    """Return where a GIF's block ends, and its length."""
    return at + 1 + data[at], data[at]


def _tile(data: bytes) -> tuple[int, int]:
    """Return the largest tile that a TIFF's first directory names, (0, 0) for none.

    Of a tag that stands there twice Pillow takes the last, and its library the first.
    """
    sides = _tiff_numbers(data, (322, 323))
    return max(sides.get(322, (0,))), max(sides.get(323, (0,)))


def _tiff_numbers(data: bytes, tags: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    """Return the first number of each entry that a TIFF's first directory has for these tags."""
    order = "<" if data[:2] == b"II" else ">"
    large = data[2:4] in (b"+\0", b"\0+")  # BigTIFF
    counts, word, size, room = ("Q", "Q", 20, 8) if large else ("H", "I", 12, 4)
    found: dict[int, tuple[int, ...]] = {}
    with suppress(struct.error, OverflowError):  # of a place of 64 bits
        [at] = struct.unpack_from(order + word, data, 8 if large else 4)
        [entries] = struct.unpack_from(order + counts, data, at)
        at += struct.calcsize(counts)
        for entry in range(at, at + size * min(entries, 1 << 16), size):
            tag, kind, count = struct.unpack_from(order + "HH" + word, data, entry)
            if tag in tags and kind in _INTEGERS:
                place = entry + size - room
                if count * struct.calcsize(_INTEGERS[kind]) > room:  # they stand elsewhere
                    [place] = struct.unpack_from(order + word, data, place)
                found[tag] = (*found.get(tag, ()), *struct.unpack_from(order + _INTEGERS[kind], data, place))
    return found


def has_one_scan(data: bytes) -> bool:
    """Tell whether a JPEG is sequential and has all components in one scan: a decoder that shrinks it keeps little.

    All of a progressive JPEG, or one of several scans, is kept before any of it is made smaller.
    """
    frame = _segment(data, 2, _FRAMES)
    behind = frame + 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")
    try:
        scan = _segment(data, behind, frozenset({_SCAN}))
    except (BadImage, NeedMore, struct.error):
        return False
    return data[frame + 1] in _SEQUENTIAL and data[scan + 4] == data[frame + 9]
