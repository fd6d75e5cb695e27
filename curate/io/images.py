"""What an image's first bytes say: its kind, width and height, without decoding it; and decoding."""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from typing import Any, NamedTuple

from curate.io.memory import Room
from curate.io.pixels import bits_of, refusal_of, size_of, tiff_refusal, to_rgb

# Enough for the header of nearly every image; a JPEG with a large EXIF block needs more.
HEADER_BYTES = 4096
MAX_PIXELS = 89_478_485  # where Pillow begins to warn: 0.36 GB, and as much again while it is made RGB
PIXELS_AT_ONCE = 1 << 25  # by all threads of a process: about 0.3 GB, for most kinds take 8 bytes a pixel
SMALL_PIXELS = 1 << 18  # images of no more need no room: 2 MB a thread
_TRIMMED_PIXELS = 1 << 22  # before more than these what was freed is given back, which takes 1 ms or so
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
# A WebP takes 16 bytes a pixel: each is decoded as an animation, which is drawn on two canvases. A PPM of 16 bits
# becomes 32-bit integers first.
_WEIGHTS = {"webp": 2, "ppm": 2}
_SIDES = range(1, 1 << 31)  # that a manifest can hold
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # the markers of a JPEG's frame
_SEQUENTIAL = (0xC0, 0xC1)
_SCAN = 0xDA
# The types of a TIFF's numbers.
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "B", 8: "H", 9: "I", 16: "Q", 17: "Q"}
_TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two of BigTIFFs
_MOST_BLOCKS = 1 << 16  # of a GIF before its first frame: 16 MB where they are full
_room = Room(PIXELS_AT_ONCE)


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
        with _pillow().open(io.BytesIO(data), formats=("BMP", "TIFF", "PPM")) as image:
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


def decode(data: bytes, *, at_least: int | None = None):  # -> PIL.Image.Image
    """Decode an image wholly and return it as RGB, as `curate.io.pixels` says; refuses bombs before decoding.

    Args:
        at_least: pixels of the short side that are enough; a JPEG twice as large is decoded at a smaller scale.

    Raises:
        BadImage: with the reason.
    """
    with _opened(data, at_least) as (header, image):
        if at_least is not None and min(header.width, header.height) >= 2 * at_least:
            image.draft(None, (at_least, at_least))  # a JPEG at a half, a quarter or an eighth
        decoded = to_rgb(image)
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
        if bits_of(image) == 16 or (header.ext == "png" and data[24] == 16):
            found.append("16 bits a channel")
        to_rgb(image)
        return found


def _shrink(header: Header, at_least: int) -> int:
    """Return the part of its width, one in so many, at which `decode` has a JPEG decoded."""
    fits = min(header.width, header.height) // at_least
    return next(shrink for shrink in (8, 4, 2, 1) if shrink <= max(fits, 1))


def _weight(data: bytes, header: Header, pixels: int, at_least: int | None) -> int:
    """Return how many pixels of the room an image takes: as many as it has, or is decoded at."""
    if header.ext == "jpg" and at_least is not None:
        frame = _segment(data, 2, _FRAMES)
        behind = frame + 2 + int.from_bytes(data[frame + 2 : frame + 4], "big")
        try:
            scan = _segment(data, behind, frozenset({_SCAN}))
        except (BadImage, NeedMore, struct.error):
            return pixels
        # All of a progressive JPEG, or one of several scans, is kept before any of it is made smaller.
        if data[frame + 1] in _SEQUENTIAL and data[scan + 4] == data[frame + 9]:
            return pixels // _shrink(header, at_least) ** 2
    return pixels * _WEIGHTS.get(header.ext, 1)


@contextmanager
def _roomy(weight: int) -> Iterator[None]:
    """Wait for room for so many pixels.

    Each thread has a heap of its own, which keeps what the decoding of large images frees: 16 threads, of
    which two decode at once, would hold 1.4 GB in place of 0.6.
    """
    with _room.taken(weight):
        if weight > _TRIMMED_PIXELS:
            _trim()(0)
        yield


@cache
def _trim() -> Any:
    """Return glibc's `malloc_trim`, or what does nothing where there is none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda _: 0


@contextmanager
def _opened(data: bytes, at_least: int | None = None) -> Iterator[tuple[Header, Any]]:
    """Open an image that may be decoded, once there is room; whatever goes wrong inside is a BadImage."""
    Image = _pillow()
    try:
        try:
            header = probe(data)
        except NeedMore:
            raise BadImage("damaged header") from None
        width, height = extent(data, header)
        pixels = width * height
        if pixels > MAX_PIXELS:
            raise TooLarge(f"{width} x {height} pixels is over the limit of {MAX_PIXELS}")
        room = nullcontext() if pixels <= SMALL_PIXELS else _roomy(_weight(data, header, pixels, at_least))
        with room, Image.open(io.BytesIO(data), formats=(_FORMATS[header.ext],)) as image:
            shown = image.size
            if shown[0] * shown[1] > pixels:  # a second header, which decoders take for the true one
                raise BadImage("damaged header")
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
