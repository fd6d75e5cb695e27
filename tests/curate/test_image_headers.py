"""What an image's first bytes say, against what Pillow says after reading all of it."""

from __future__ import annotations

import contextlib
import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from curate.images import HEADER_BYTES, MAX_PIXELS, BadImage, NeedMore, TooLarge, decode, oddities, probe

SIZES = [(1, 1), (67, 41), (300, 200)]


def encode(kind: str, size: tuple[int, int] = (67, 41), mode: str = "RGB", **options: Any) -> bytes:
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def exif(length: int) -> Any:
    found = Image.Exif()
    found[0x010E] = "x" * length  # the description
    return found


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "jpeg-progressive": ("JPEG", {"progressive": True}),
    "jpeg-grey": ("JPEG", {"mode": "L"}),
    "jpeg-cmyk": ("JPEG", {"mode": "CMYK"}),
    "jpeg-exif": ("JPEG", {"exif": exif(100)}),
    "png": ("PNG", {}),
    "png-palette": ("PNG", {"mode": "P"}),
    "png-alpha": ("PNG", {"mode": "RGBA"}),
    "gif": ("GIF", {"mode": "P"}),
    "webp-lossy": ("WEBP", {}),
    "webp-lossless": ("WEBP", {"lossless": True}),
    "webp-extended": ("WEBP", {"exif": exif(100)}),
    "webp-alpha": ("WEBP", {"mode": "RGBA"}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "ppm": ("PPM", {}),
}
USUAL = {kind: kind.lower() for kind in ("PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")} | {"JPEG": "jpg"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", KINDS)
def test_header_is_what_pillow_says(name: str, size: tuple[int, int]) -> None:
    kind, options = KINDS[name]
    data = encode(kind, size, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert probe(data) == (USUAL[image.format or ""], *image.size)


@pytest.mark.parametrize("name", [n for n in KINDS if n != "tiff"])
def test_first_bytes_are_enough(name: str) -> None:
    kind, options = KINDS[name]
    data = encode(kind, (300, 200), **options)
    assert probe(data[:HEADER_BYTES]) == probe(data)


def test_the_three_kinds_of_webp_are_all_met() -> None:
    forms = {encode(*KINDS[n][:1], **KINDS[n][1])[12:16] for n in KINDS if n.startswith("webp")}
    assert forms == {b"VP8 ", b"VP8L", b"VP8X"}


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_with_a_large_exif_needs_more(progressive: bool) -> None:
    data = encode("JPEG", exif=exif(3 * HEADER_BYTES), progressive=progressive)
    with pytest.raises(NeedMore):
        probe(data[:HEADER_BYTES])
    assert probe(data) == ("jpg", 67, 41)


def test_garbage_between_the_segments_of_a_jpeg_is_passed_over() -> None:
    data = encode("JPEG")
    frame = data.index(b"\xff\xc0")
    with Image.open(io.BytesIO(data[:frame] + b"junk\xff\x00\xff\xff" + data[frame:])) as image:
        image.load()  # decoders do so too
        assert probe(data[:frame] + b"junk\xff\x00\xff\xff" + data[frame:]) == ("jpg", *image.size)
    with pytest.raises(NeedMore):
        probe(data[:frame] + b"junk and no frame")


def test_tables_before_the_frame_of_a_jpeg_are_not_taken_for_it() -> None:
    data = encode("JPEG")
    frame, tables = data.index(b"\xff\xc0"), data.index(b"\xff\xc4")
    length = 2 + int.from_bytes(data[tables + 2 : tables + 4], "big")
    moved = data[:frame] + data[tables : tables + length] + data[frame:]
    with Image.open(io.BytesIO(moved)) as image:
        image.load()
        assert probe(moved) == ("jpg", *image.size)


def test_tiff_whose_directory_stands_at_its_end_needs_more() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8).tobytes()
    tags = {256: 90, 257: 90, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 278: 90, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    data = struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + directory
    with pytest.raises(NeedMore):
        probe(data[:HEADER_BYTES])
    assert probe(data) == ("tiff", 90, 90)


def test_name_does_not_tell_the_kind() -> None:
    assert probe(encode("PNG")).ext == "png"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
        (bytes(5000), "not an image"),
        (b"\x89PNG\r\n\x1a\n\0\0", "damaged header"),
        (b"GIF89a\x01", "damaged header"),
        (b"\xff\xd8\xff\xd9" + bytes(20), "damaged header"),
        (b"II*\0" + bytes(100), "not an image"),
        *[(encode("WEBP", **KINDS[n][1])[:20], "damaged header") for n in KINDS if n.startswith("webp")],
    ],
)
def test_what_is_no_image_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=f"^{reason}$"):
        probe(data)


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X", b"RIFF\0\0\0\0WEBPVP8L",
          b"BM", b"II*\0", b"MM\0*", b"P6\n"]  # fmt: skip


@given(st.sampled_from(STARTS), st.binary(max_size=200))
@example(b"\xff\xd8", b"\xff\xff\xff\xff" * 50)
@example(b"\xff\xd8", b"\xff\xe0\0\0" * 40)
def test_random_bytes_raise_nothing_else(start: bytes, rest: bytes) -> None:
    try:
        found = probe(start + rest)
    except (BadImage, NeedMore):
        return
    assert found.ext in USUAL.values()


@given(st.sampled_from(list(KINDS)), st.data())
def test_damaged_images_raise_nothing_else(name: str, draw: Any) -> None:
    kind, options = KINDS[name]
    data = bytearray(encode(kind, (12, 9), **options))
    for position in draw.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
        data[position] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))
    for damaged in (bytes(data), bytes(data[:cut])):
        with contextlib.suppress(BadImage):
            assert decode(damaged).mode == "RGB"


@pytest.mark.parametrize("name", KINDS)
def test_decoding_gives_rgb_of_the_size_in_the_header(name: str) -> None:
    kind, options = KINDS[name]
    data = encode(kind, **options)
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", probe(data)[1:])


def test_cut_image_is_told_as_truncated() -> None:
    data = encode("JPEG", (300, 200))
    assert probe(data[: len(data) // 2]) == ("jpg", 300, 200)  # its header is whole
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: len(data) // 2])


def test_bomb_is_refused_before_it_is_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    data = bytearray(encode("PNG"))
    data[16:24] = struct.pack(">II", side, side)
    with pytest.raises(TooLarge, match="pixels is over the limit"):
        decode(bytes(data))


def test_frame_larger_than_its_screen_is_cut_to_it() -> None:
    stream = io.BytesIO()
    frame = Image.new("RGB", (40, 30), (0, 0, 0))
    frame.paste((250, 0, 0), (0, 0, 20, 10))
    frame.save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = struct.pack("<HH", 20, 10)  # the screen
    assert probe(bytes(data)) == ("gif", 20, 10)
    image = decode(bytes(data))
    assert image.size == (20, 10)
    assert image.getextrema()[0] == (250, 250)


def test_only_the_decoder_of_the_kind_in_the_header_is_asked() -> None:
    data = b"II*\0" + encode("PNG")  # neither the one nor the other
    with pytest.raises(BadImage):
        decode(data)


@pytest.mark.parametrize(
    ("data", "odd"),
    [
        (encode("JPEG"), []),
        (encode("PNG", mode="RGBA"), []),
        (encode("JPEG", mode="CMYK"), ["CMYK"]),
        (encode("PNG", mode="I;16"), ["16 bits a channel"]),
        (encode("WEBP", save_all=True, append_images=[Image.new("RGB", (67, 41))]), ["animated"]),
    ],
)
def test_what_is_unusual_about_an_image_is_told(data: bytes, odd: list[str]) -> None:
    assert oddities(data) == odd


def test_unusual_image_that_is_cut_is_no_image() -> None:
    data = encode("JPEG", (300, 200), mode="CMYK")
    with pytest.raises(BadImage, match="truncated"):
        oddities(data[: len(data) // 2])


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading
    import time
    from concurrent.futures import ThreadPoolExecutor

    from curate import images

    at_once, most = 0, 0
    lock = threading.Lock()
    load = Image.Image.convert

    def convert(*args: Any, **kwargs: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return load(*args, **kwargs)

    monkeypatch.setattr(Image.Image, "convert", convert)
    data = [encode("JPEG", (64, 48))] * 8
    for limit, expected in ((64 * 48, range(2, 5)), (64 * 48 - 1, range(1, 2))):
        monkeypatch.setattr(images, "LARGE_PIXELS", limit)
        most = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(decode, data))
        assert most in expected
