"""Decoding of images: whole images to RGB, within limits of pixels and memory."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from curate.io.image_headers import BadImage, Header, NeedMore, extent, has_one_scan, pillow, probe
from curate.io.memory import MemoryBudget
from curate.io.pixels import bits_of, to_rgb

MAX_PIXELS = 89_478_485  # where Pillow begins to warn: 0.36 GB, and as much again while it is made RGB
PIXELS_AT_ONCE = 1 << 25  # by all threads of a process: about 0.3 GB, for most kinds take 8 bytes a pixel
SMALL_PIXELS = 1 << 18  # smaller images reserve nothing: 2 MB a thread
_TRIMMED_PIXELS = 1 << 22  # before more than these what was freed is given back, which takes 1 ms or so

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
_budget = MemoryBudget(PIXELS_AT_ONCE)


class TooLarge(BadImage):
    """An image of more pixels than are decoded."""


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
    """Return how many pixels an image reserves: those it has, or those that it is decoded to."""
    if header.ext == "jpg" and at_least is not None:
        return pixels // _shrink(header, at_least) ** 2 if has_one_scan(data) else pixels
    return pixels * _WEIGHTS.get(header.ext, 1)


@contextmanager
def _reserved(weight: int) -> Iterator[None]:
    """Wait until so many pixels may be decoded.

    Each thread has a heap of its own, which keeps what the decoding of large images frees: 16 threads, of
    which two decode at once, would hold 1.4 GB in place of 0.6.
    """
    with _budget.reserved(weight):
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
    """Open an image once the budget has enough for it; every error inside becomes a BadImage."""
    Image = pillow()
    try:
        try:
            header = probe(data)
        except NeedMore:
            raise BadImage("damaged header") from None
        width, height = extent(data, header)
        pixels = width * height
        if pixels > MAX_PIXELS:
            raise TooLarge(f"{width} x {height} pixels is over the limit of {MAX_PIXELS}")
        reserved = (
            nullcontext() if pixels <= SMALL_PIXELS else _reserved(_weight(data, header, pixels, at_least))
        )
        with reserved, Image.open(io.BytesIO(data), formats=(_FORMATS[header.ext],)) as image:
            if image.width * image.height > pixels:  # a second header, which decoders take for the true one
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
