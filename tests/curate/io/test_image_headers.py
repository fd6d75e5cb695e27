"""What an image's first bytes say, against what Pillow says after reading all of it."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from curate.io import images
from curate.io.image_headers import HEADER_BYTES, BadImage, NeedMore, extent, probe
from curate.io.images import MAX_PIXELS, TooLarge, decode, oddities
from curate.io.memory import MemoryBudget

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
          b"BM", b"II*\0", b"MM\0*", b"II+\0", b"P6\n"]  # fmt: skip


@given(st.sampled_from(STARTS), st.binary(max_size=200))
@example(b"\xff\xd8", b"\xff\xff\xff\xff" * 50)
@example(b"\xff\xd8", b"\xff\xe0\0\0" * 40)
@example(b"II+\0", b"\x08\0\0\0" + b"\xff" * 60)
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


def gif_of(frame: tuple[int, int], before: bytes = b"", offset: int = 0) -> bytes:
    """A GIF whose screen is 1 x 1, with blocks before its first frame."""
    stream = io.BytesIO()
    Image.new("P", frame).save(stream, "GIF")
    data = stream.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1)
    while data[at] != 0x2C:
        at += 8  # a control extension
    place = data[at : at + 1] + struct.pack("<HH", offset, 0) + data[at + 5 :]
    return data[:6] + struct.pack("<HH", 1, 1) + data[10:at] + before + place


def tiff_of(tiles: list[int], size: int = 1, order: str = "<", large: bool = False) -> bytes:
    """A TIFF of tiles of these sides, each named by a tag; the first is the true one."""
    begin, word = (16, "Q") if large else (8, "I")
    pixels = zlib.compress(bytes(tiles[0] ** 2 * 3))
    tags = [(256, size), (257, size), (258, 8), (259, 8), (262, 2), (277, 3)]
    tags += [(tag, tile) for tag in (322, 323) for tile in tiles] + [(324, begin), (325, len(pixels))]
    entries = b"".join(struct.pack(f"{order}HH{word}{word}", tag, 4, 1, value) for tag, value in tags)
    if large:
        entries = b"".join(struct.pack(f"{order}HHQI4x", tag, 4, 1, value) for tag, value in tags)
    mark = {"<": b"II", ">": b"MM"}[order]
    header = struct.pack(f"{order}HHHQ", 43, 8, 0, begin + len(pixels)) if large else struct.pack(
        f"{order}HI", 42, begin + len(pixels)
    )  # fmt: skip
    count = struct.pack(order + ("Q" if large else "H"), len(tags))
    return mark + header + pixels + count + entries + bytes(8)


EXTENSIONS_OF_A_GIF = {
    "none": b"",
    "control": b"!\xf9\x04\0\0\0\0\0",
    "comment": b"!\xfe\x03one\x03two\0",
    "empty-comment": b"!\xfe\0",
    "loop": b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0",
    "garbage": b"\0\x07",
    "empty-control": b"!\xf9\0" + bytes([0x2C, 0, 0, 0, 0, 1, 0, 1, 0]).ljust(0x2C + 1, b"\0") + b"\0\0",
    "loop-without-a-count": b"!\xff\x0bNETSCAPE2.0\0\x02ab\0",
}


@pytest.mark.parametrize("offset", [0, 7])
@pytest.mark.parametrize("name", EXTENSIONS_OF_A_GIF)
def test_extent_of_a_gif_is_what_pillow_makes_room_for(name: str, offset: int) -> None:
    data = gif_of((40, 30), EXTENSIONS_OF_A_GIF[name], offset)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size in ((40 + offset, 30), (1, 1))
        assert extent(data, probe(data)) == image.size
    assert decode(data).size == probe(data)[1:] == (1, 1)


@given(st.binary(max_size=60), st.booleans())
@example(b"!\xff\x0bNETSCAPE2.0\0\x0a" + bytes(10), False)
def test_extent_of_any_gif_is_what_pillow_makes_room_for(blocks: bytes, palette: bool) -> None:
    data = gif_of((40, 30), blocks)
    data = data if palette else data[:10] + b"\0" + data[11:]
    size = extent(data, probe(data))
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("GIF",)) as image:
        assert size == image.size


def second_header(kind: str) -> bytes:
    """A PNG or JPEG whose first header says 67 x 41, and whose second says more."""
    data = encode(kind)
    begin = 8 if kind == "PNG" else data.index(b"\xff\xc0")
    length = 25 if kind == "PNG" else 2 + int.from_bytes(data[begin + 2 : begin + 4], "big")
    header = bytearray(data[begin : begin + length])
    size = (8, struct.pack(">II", 500, 400)) if kind == "PNG" else (5, struct.pack(">HH", 400, 500))
    header[size[0] : size[0] + len(size[1])] = size[1]
    if kind == "PNG":
        header[-4:] = struct.pack(">I", zlib.crc32(header[4:-4]))
    return data[: begin + length] + bytes(header) + data[begin + length :]


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_second_header_that_says_more_is_damage(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = second_header(kind)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (500, 400), "Pillow goes by the second"
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(BadImage, match=r"^damaged header$"):
        decode(data)


@pytest.mark.parametrize(("order", "large"), [("<", False), (">", False), ("<", True)])
def test_tile_larger_than_its_tiff_counts(order: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff_of([512], order=order, large=large)
    assert probe(data) == ("tiff", 1, 1)
    assert extent(data, probe(data)) == (512, 512)
    assert decode(data).size == (1, 1)
    monkeypatch.setattr(images, "MAX_PIXELS", 512**2 - 1)
    for refused in (data, tiff_of([512, 16], order=order, large=large)):
        with pytest.raises(TooLarge, match=r"^512 x 512 pixels"):
            decode(refused)
    assert extent(tiff_of([16], size=40), probe(tiff_of([16], size=40))) == (40, 40)


def test_frame_of_a_gif_is_held_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    data = bytearray(gif_of((20, 10)))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    at = data.index(b"\x2c", 13 + (3 << (data[10] & 7) + 1))
    data[at + 5 : at + 9] = struct.pack("<HH", side, side)
    for look in (decode, oddities):
        with pytest.raises(TooLarge, match=f"^{side} x {side} pixels is over the limit"):
            look(bytes(data))


@pytest.mark.parametrize("blocks", [b"!\xfe" + b"\x01a" * 2_000_000 + b"\0", bytes(4_000_000)])
def test_gif_of_blocks_without_end_is_left_soon(blocks: bytes) -> None:
    data = gif_of((20, 10), blocks)
    begin = time.process_time()
    with pytest.raises(BadImage, match=r"^damaged header$"):
        decode(data)
    assert time.process_time() - begin < 0.3


def most_at_once(
    monkeypatch: pytest.MonkeyPatch, data: list[bytes], room: int, wanted: int, at_least: int | None = None
) -> int:
    """How many of these images four threads decode at once, with room for so many pixels.

    They wait for each other until as many as are `wanted` have come, and then a little for one too many.
    """
    at_once, most = 0, 0
    lock = threading.Condition()
    load = Image.Image.convert

    def convert(*args: Any, **kwargs: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            lock.notify_all()
            lock.wait_for(lambda: most >= wanted, timeout=30)
        time.sleep(0.03)
        with lock:
            at_once -= 1
        return load(*args, **kwargs)

    with monkeypatch.context() as patch, ThreadPoolExecutor(4) as pool:
        patch.setattr(Image.Image, "convert", convert)
        patch.setattr(images, "_budget", MemoryBudget(room))
        list(pool.map(partial(decode, at_least=at_least), data))
    return most


def test_images_wait_until_their_pixels_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SMALL_PIXELS", 0)
    large, webp, pixels = encode("PNG", (320, 200)), encode("WEBP", (320, 200)), 320 * 200
    assert most_at_once(monkeypatch, [large] * 8, 4 * pixels, 3) >= 3
    assert most_at_once(monkeypatch, [large] * 8, 3 * pixels - 1, 2) == 2
    assert most_at_once(monkeypatch, [large] * 8, pixels // 2, 1) == 1, (
        "what is more than the room goes alone"
    )
    assert most_at_once(monkeypatch, [webp] * 8, 4 * pixels, 2) == 2, "twice the memory"
    monkeypatch.setattr(images, "SMALL_PIXELS", pixels)
    assert most_at_once(monkeypatch, [large] * 8, 1, 3) >= 3, "a small one does not wait"


def test_jpeg_takes_the_room_of_the_scale_at_which_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SMALL_PIXELS", 0)
    usual, progressive = encode("JPEG", (640, 400)), encode("JPEG", (640, 400), progressive=True)
    eighth = 4 * 80 * 50
    assert most_at_once(monkeypatch, [usual] * 8, eighth, 3, at_least=50) >= 3
    assert most_at_once(monkeypatch, [usual] * 8, eighth, 1, at_least=100) == 1
    assert most_at_once(monkeypatch, [progressive] * 8, eighth, 1, at_least=50) == 1, "it is kept as a whole"


MEMORY_OF_THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from curate.io.images import decode, pillow
def peak_mb():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
pillow().init()
data = sys.stdin.buffer.read()
before = peak_mb()
with ThreadPoolExecutor(24) as pool:
    assert set(pool.map(lambda _: decode(data, at_least=64).size, range(24))) == {(3000, 3000)}
print(peak_mb() - before)
"""


def test_memory_does_not_grow_with_the_threads() -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (3000, 3000)).save(stream, "PNG")  # 72 MB while it is decoded
    run = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_THREADS], input=stream.getvalue(), stdout=subprocess.PIPE, check=True
    )
    assert 100 < int(run.stdout) < 800, "three at once, and what their threads keep; without room 1500"


def test_room_is_given_in_turn_and_comes_back() -> None:
    budget, order = MemoryBudget(10), []

    def enter(name: str, amount: int) -> None:
        with budget.reserved(amount):
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        with budget.reserved(6):
            with pytest.raises(TimeoutError), budget.reserved(5, until=time.monotonic() + 0.05):
                pass
            entered = []
            for name, amount in (("all", 99), ("little", 1)):  # which would fit, and would keep "all" out
                entered.append(pool.submit(enter, name, amount))
                time.sleep(0.05)
            assert order == []
        for one in entered:
            one.result(timeout=60)
    assert order == ["all", "little"]
    with pytest.raises(RuntimeError), budget.reserved(10):
        raise RuntimeError
    with budget.reserved(10, until=0.0):
        order.append("again")
    assert order[-1] == "again"


def test_who_gives_up_lets_those_behind_in() -> None:
    budget = MemoryBudget(10)

    def enter(amount: int, wait_s: float) -> float:
        with budget.reserved(amount, until=time.monotonic() + wait_s):
            return time.monotonic()

    with ThreadPoolExecutor(2) as pool, budget.reserved(6):
        begin = time.monotonic()
        first = pool.submit(enter, 9, 0.3)
        time.sleep(0.1)
        second = pool.submit(enter, 4, 600.0)
        assert 0.25 < second.result() - begin < 300, "it waited behind the first, and for nothing else"
        with pytest.raises(TimeoutError):
            first.result()


def test_forked_process_has_all_the_room() -> None:
    budget = MemoryBudget(10)
    with budget.reserved(10):
        child = os.fork()
        if not child:
            status = 1
            with contextlib.suppress(TimeoutError), budget.reserved(10, until=time.monotonic() + 60):
                status = 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
