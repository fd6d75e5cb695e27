"""Images of every kind and mode, with the pixels that they hold; many are written byte by byte."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIDE = 64

_x, _y = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
# Smooth, unlike in each channel and at each corner; 16 bits, of which the lower 8 matter too.
DEEP_HW3 = np.stack([_x * 60000, _y * 50000 + 3000, (1 - _x * _y) * 65535], axis=2).astype(np.uint16)
GREY_HW = DEEP_HW3[:, :, 2] // 3 + DEEP_HW3[:, :, 0] // 2
RGB_HW3 = (DEEP_HW3 >> 8).astype(np.uint8)
ALPHA_HW = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 16


def png(pixels: np.ndarray, colour: int, depth: int = 16) -> bytes:
    """Return a PNG of pixels HW or HWC, of a colour type."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(
    raw: bytes, bits: int, *, order: str = "<", photometric: int = 1, sample_format: int = 1, channels: int = 1,
    size: tuple[int, int] = (SIDE, SIDE), pages: int = 1, **tags: int,
) -> bytes:  # fmt: skip
    """Return a TIFF of one strip a page, each the same; `tags` are further ones, such as `t274=6`."""
    words = b"".join(struct.pack(order + "H", bits) for _ in range(channels))
    formats = b"".join(struct.pack(order + "H", sample_format) for _ in range(channels))
    out = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "H", 42)
    words_at, formats_at, raw_at = 8, 8 + len(words), 8 + len(words) + len(formats)
    inline = {258: bits, 339: sample_format} if channels == 1 else {258: words_at, 339: formats_at}
    entries = {
        256: size[0], 257: size[1], 259: 1, 262: photometric, 273: raw_at, 277: channels, 278: size[1],
        279: len(raw), **inline, **{int(name[1:]): value for name, value in tags.items()},
    }  # fmt: skip
    at = raw_at + len(raw)
    body = words + formats + raw
    length = 2 + 12 * len(entries) + 4
    for page in range(pages):
        body += struct.pack(order + "H", len(entries))
        for tag, value in sorted(entries.items()):
            short = tag in (258, 339)
            count = channels if short else 1
            packed = struct.pack(
                order + ("HH" if short and count == 1 else "I"),
                *([value, 0] if short and count == 1 else [value]),
            )
            body += struct.pack(order + "HHI", tag, 3 if short else 4, count) + packed
        body += struct.pack(order + "I", at + (page + 1) * length if page + 1 < pages else 0)
    return out + struct.pack(order + "I", at) + body


def saved(pixels: np.ndarray, kind: str, mode: str | None = None, **how: Any) -> bytes:
    """Return what Pillow makes of uint8 pixels HW or HW3."""
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **how)
    return stream.getvalue()


def _grey(values_HW: np.ndarray) -> np.ndarray:
    return np.repeat(values_HW.astype(np.uint8)[:, :, None], 3, axis=2)


def _deep() -> dict[str, tuple[bytes, np.ndarray]]:
    """Images of more than 8 bits a channel."""
    upper = _grey(GREY_HW >> 8)
    rounded = _grey(np.floor(GREY_HW / 257 + 0.5))
    with_alpha = np.concatenate([DEEP_HW3, ALPHA_HW[:, :, None]], axis=2)
    twelve = GREY_HW >> 4
    pairs = twelve.reshape(-1, 2).astype(np.uint32)
    packed = (pairs[:, 0] << 12 | pairs[:, 1]).astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    return {
        "png-grey": (png(GREY_HW, 0), upper),
        "png-grey-alpha": (png(np.stack([GREY_HW, ALPHA_HW], axis=2), 4), upper),
        "png-rgb": (png(DEEP_HW3, 2), RGB_HW3),
        "png-rgba": (png(with_alpha, 6), RGB_HW3),
        "tiff-grey": (tiff(GREY_HW.astype("<u2").tobytes(), 16), upper),
        "tiff-grey-big-endian": (tiff(GREY_HW.astype(">u2").tobytes(), 16, order=">"), upper),
        "tiff-grey-white-is-zero": (
            tiff((65535 - GREY_HW).astype("<u2").tobytes(), 16, photometric=0), upper,
        ),
        "tiff-grey-12-bits": (tiff(packed.tobytes(), 12), _grey(twelve >> 4)),
        "tiff-rgb": (tiff(DEEP_HW3.astype("<u2").tobytes(), 16, photometric=2, channels=3), RGB_HW3),
        "tiff-rgb-big-endian": (
            tiff(DEEP_HW3.astype(">u2").tobytes(), 16, order=">", photometric=2, channels=3), RGB_HW3,
        ),
        "ppm-grey": (b"P5 64 64 65535\n" + GREY_HW.astype(">u2").tobytes(), rounded),
        "ppm-rgb": (
            b"P6 64 64 65535\n" + DEEP_HW3.astype(">u2").tobytes(), np.floor(DEEP_HW3 / 257 + 0.5).astype(np.uint8),
        ),
    }  # fmt: skip


def _shallow() -> dict[str, tuple[bytes, np.ndarray]]:
    """Images of 8 bits a channel or fewer, without loss."""
    grey_HW = (GREY_HW >> 8).astype(np.uint8)
    grey, black = _grey(grey_HW), _grey((grey_HW > 127) * 255)
    rgba = np.concatenate([RGB_HW3, (ALPHA_HW >> 8).astype(np.uint8)[:, :, None]], axis=2)
    bits = np.packbits(grey_HW > 127, axis=1)
    palette = Image.fromarray(RGB_HW3).quantize(200)
    indexed = np.asarray(palette.convert("RGB"))

    def of_palette(kind: str, **how: Any) -> bytes:
        stream = io.BytesIO()
        palette.save(stream, kind, **how)
        return stream.getvalue()

    return {
        "png": (png(RGB_HW3, 2, 8), RGB_HW3),
        "png-grey-8": (png(grey_HW, 0, 8), grey),
        "png-rgba-8": (png(rgba, 6, 8), RGB_HW3),
        "png-grey-alpha-8": (png(rgba[:, :, [0, 3]], 4, 8), _grey(RGB_HW3[:, :, 0])),
        "png-1": (saved(black, "PNG", "1", bits=1), black),
        "png-palette-transparent": (of_palette("PNG", transparency=bytes(range(200))), indexed),
        "png-animated": (
            saved(RGB_HW3, "PNG", save_all=True, append_images=[Image.new("RGB", (SIDE, SIDE))]), RGB_HW3,
        ),
        "gif": (of_palette("GIF"), indexed),
        "gif-transparent": (of_palette("GIF", transparency=3), indexed),
        "gif-animated": (of_palette("GIF", save_all=True, append_images=[Image.new("P", (SIDE, SIDE))]), indexed),
        "bmp": (saved(RGB_HW3, "BMP"), RGB_HW3),
        "bmp-palette": (of_palette("BMP"), indexed),
        "tiff": (tiff(RGB_HW3.tobytes(), 8, photometric=2, channels=3), RGB_HW3),
        "tiff-1": (tiff(bits.tobytes(), 1), black),
        "tiff-lzw": (saved(RGB_HW3, "TIFF", compression="tiff_lzw"), RGB_HW3),
        "tiff-pages": (tiff(RGB_HW3.tobytes(), 8, photometric=2, channels=3, pages=3), RGB_HW3),
        "webp-lossless": (saved(RGB_HW3, "WEBP", lossless=True), RGB_HW3),
        "webp-lossless-rgba": (saved(rgba, "WEBP", lossless=True, exact=True), RGB_HW3),
        "ppm": (b"P6 64 64 255\n" + RGB_HW3.tobytes(), RGB_HW3),
        "pgm": (b"P5 64 64 255\n" + grey_HW.tobytes(), grey),
    }  # fmt: skip


EXACT = _deep() | _shallow()

# With loss, or by a formula of the decoder's own: the pixels are so many apart, on average.
LOSSY: dict[str, tuple[bytes, np.ndarray]] = {
    "ppm-grey-10-bits": (
        b"P5 64 64 1023\n" + (GREY_HW >> 6).astype(">u2").tobytes(),
        _grey(np.floor((GREY_HW >> 6) * (255 / 1023) + 0.5)),
    ),
    "jpeg": (saved(RGB_HW3, "JPEG", quality=95), RGB_HW3),
    "jpeg-grey": (saved(_grey(GREY_HW >> 8), "JPEG", "L", quality=95), _grey(GREY_HW >> 8)),
    "jpeg-cmyk": (saved(RGB_HW3, "JPEG", "CMYK", quality=95), RGB_HW3),
    "webp": (saved(RGB_HW3, "WEBP", quality=95), RGB_HW3),
    "tiff-cmyk": (saved(RGB_HW3, "TIFF", "CMYK"), RGB_HW3),
    "tiff-jpeg": (saved(RGB_HW3, "TIFF", compression="jpeg", quality=95), RGB_HW3),
}


def _floats() -> dict[str, tuple[bytes, str]]:
    values = GREY_HW.astype(np.int64)

    def of(kind: str, bits: int, sample_format: int, order: str = "<", **how: Any) -> bytes:
        return tiff(
            values.astype(order + kind).tobytes(), bits, sample_format=sample_format, order=order, **how
        )

    jpeg = bytearray(LOSSY["jpeg"][0])
    jpeg[jpeg.index(b"\xff\xc0") + 4] = 12
    return {
        "float.tiff": (of("f4", 32, 3), "no 8-bit pixels (float)"),
        "float-big-endian.tiff": (of("f4", 32, 3, ">"), "no 8-bit pixels (float)"),
        "double.tiff": (of("f8", 64, 3), "no 8-bit pixels (float)"),
        "half.tiff": (tiff((GREY_HW / 65535).astype("<f2").tobytes(), 16, sample_format=3), "no 8-bit pixels (float)"),
        "float-rgb.tiff": (
            tiff(DEEP_HW3.astype("<f4").tobytes(), 32, photometric=2, sample_format=3, channels=3),
            "no 8-bit pixels (float)",
        ),
        "int32.tiff": (of("i4", 32, 2), "no 8-bit pixels (signed integers)"),
        "int16.tiff": (of("i2", 16, 2), "no 8-bit pixels (signed integers)"),
        "int8.tiff": (of("i1", 8, 2), "no 8-bit pixels (signed integers)"),
        "uint32.tiff": (of("u4", 32, 1), "no 8-bit pixels (32-bit integers)"),
        "uint32-big-endian.tiff": (of("u4", 32, 1, ">"), "no 8-bit pixels (32-bit integers)"),
        "float.ppm": (b"Pf 64 64 -1.0\n" + values.astype("<f4").tobytes(), "no 8-bit pixels (float)"),
        "twelve.jpg": (bytes(jpeg), "no 8-bit pixels (12-bit JPEG)"),
    }  # fmt: skip


REFUSED = _floats()


def turned(kind: str, orientation: int, **how: Any) -> bytes:
    """Return an image of 48 x 32 pixels, red at the left and blue at the right, whose EXIF asks to turn it."""
    exif = Image.Exif()
    exif[0x112] = orientation
    extra = {"tiffinfo": {0x112: orientation}} if kind == "TIFF" else {"exif": exif}
    return saved(FLAG_HW3, kind, **extra, **how)


FLAG_HW3 = np.zeros((32, 48, 3), np.uint8)
FLAG_HW3[:, :24] = (240, 16, 16)
FLAG_HW3[:, 24:] = (16, 16, 240)
FLAG_HW3[:8] //= 2
