"""Every kind of file and every mode: which pixels header, decoder, loader, hashes and gallery make of it."""

from __future__ import annotations

import base64
import io
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kinds
import numpy as np
import pytest
from PIL import Image

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.datasets.gallery import write_gallery
from curate.datasets.lint.tars import lint
from curate.datasets.verification import verify
from curate.io.image_headers import BadImage, NeedMore, probe
from curate.io.images import decode, oddities
from curate.ops._hashing import perceptual_hashes
from curate.recipes.recipe import load
from train.augment.decode import header_of, pixels
from train.data.loader import Loader

ALL = kinds.EXACT | kinds.LOSSY
ENDINGS = {
    "jpg": "jpg",
    "png": "png",
    "gif": "gif",
    "webp": "webp",
    "bmp": "bmp",
    "tiff": "tif",
    "ppm": "ppm",
}
Build = Callable[..., Dataset]


@pytest.fixture
def build_files(tmp_path: Path, write_recipe: Callable[..., Path]) -> Build:
    """Build a set of files, an overlay unless told otherwise: `build_files({"a.png": data}, resize=…)`."""

    def make(files: dict[str, bytes], **rest: Any) -> Dataset:
        for name, data in files.items():
            path = tmp_path / "pool" / "c" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        path = write_recipe({"source": {"folder": str(tmp_path / "pool")}, "steps": [], **rest}, "set")
        return build(load(path), tmp_path / "set", overlay="resize" not in rest)[0].dataset

    return make


def read_all(data: Dataset) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What the loader makes of each image at its own size, and why of others nothing."""
    loader = Loader(
        data, batch_size=100, image_size=kinds.SIDE, seed=0, augment=False, workers=1, max_broken_fraction=1.0
    )
    try:
        [batch] = loader.epoch(0)
        images_BHW3 = np.asarray(batch.images).transpose(0, 2, 3, 1)
        return dict(zip(batch.keys, images_BHW3, strict=True)), dict(loader.unreadable.reasons)
    finally:
        loader.close()


@pytest.mark.parametrize("name", kinds.EXACT)
def test_pixels_are_those_that_were_stored(name: str) -> None:
    data, expected = kinds.EXACT[name]
    assert probe(data)[1:] == (kinds.SIDE, kinds.SIDE)
    np.testing.assert_array_equal(np.asarray(decode(data)), expected)
    np.testing.assert_array_equal(pixels(data, header_of(data)), expected)


@pytest.mark.parametrize("name", kinds.LOSSY)
def test_lossy_pixels_are_near_those_that_were_stored(name: str) -> None:
    data, expected = kinds.LOSSY[name]
    for found in (np.asarray(decode(data)), pixels(data, header_of(data))):
        assert np.abs(found.astype(int) - expected).mean() < 2


def test_one_picture_of_any_kind_has_one_perceptual_hash() -> None:
    for data, expected in kinds.EXACT.values():
        assert perceptual_hashes(data) == perceptual_hashes(kinds.png(expected, 2, 8)) is not None


def test_loader_and_gallery_show_what_was_stored(build_files: Build, tmp_path: Path) -> None:
    files = {f"{name}.{ENDINGS[probe(data).ext]}": data for name, (data, _) in ALL.items()}
    data = build_files(files)
    assert len(data) == len(ALL)
    assert verify(tmp_path / "set") == []
    seen, broken = read_all(data)
    assert not broken
    for name, (_, expected) in ALL.items():
        found = seen[f"c/{name}"]
        if name in kinds.EXACT:
            np.testing.assert_array_equal(found, expected)
        assert np.abs(found.astype(int) - expected).mean() < 2
    page = write_gallery(tmp_path / "set", per_class=100).read_text()
    shown = {
        name: base64.b64decode(image)
        for image, name in re.findall(r"base64,([^\"]+)\"><figcaption>c/([^<]+)<", page)
    }
    for name, (_, expected) in ALL.items():
        with Image.open(io.BytesIO(shown[name])) as image:
            assert np.abs(np.asarray(image).astype(int) - expected).mean() < 6, name


@pytest.mark.parametrize("name", kinds.REFUSED)
def test_what_has_no_8_bit_pixels_is_refused_by_its_header(name: str) -> None:
    data, reason = kinds.REFUSED[name]
    for look in (probe, decode, oddities, header_of):
        with pytest.raises(BadImage, match=f"^{re.escape(reason)}$"):
            look(data)
    assert perceptual_hashes(data) is None


def test_what_has_no_8_bit_pixels_is_counted_by_a_build(build_files: Build, tmp_path: Path) -> None:
    data = build_files(
        {"ok.png": kinds.EXACT["png"][0]} | {name: data for name, (data, _) in kinds.REFUSED.items()}
    )
    assert len(data) == 1
    assert data.info.source["left_out"] == {
        reason: sum(told == reason for _, told in kinds.REFUSED.values())
        for _, reason in kinds.REFUSED.values()
    }
    path = tmp_path / "all.tar"
    with tarfile.open(path, "w") as tar:
        for name, (image, _) in kinds.REFUSED.items():
            member = tarfile.TarInfo(name)
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    report = lint([str(path)])
    assert report.counts["undecodable image"] == len(kinds.REFUSED)


def test_image_that_was_exchanged_for_a_float_one_is_named_by_verify_and_loader(
    build_files: Build, tmp_path: Path
) -> None:
    data = build_files({"a.tif": kinds.EXACT["tiff-grey"][0], "b.png": kinds.EXACT["png"][0]})
    assert len(data) == 2
    grey, reason = kinds.EXACT["tiff-grey"][0], kinds.REFUSED["float.tiff"][1]
    wrong = kinds.tiff(bytes(4 * 32 * 32), 32, sample_format=3, size=(32, 32))
    (tmp_path / "pool" / "c" / "a.tif").write_bytes(wrong.ljust(len(grey), b"\0"))
    assert any(reason in fault for fault in map(str, verify(tmp_path / "set")))
    seen, broken = read_all(data)
    assert set(seen) == {"c/b"}
    assert broken == {"c/a": reason}


ORIENTED = [
    (kind, orientation)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    for orientation in ((6, 3) if kind != "TIFF" else range(2, 9))
]


@pytest.mark.parametrize(("kind", "orientation"), ORIENTED)
@pytest.mark.parametrize("packed", [False, True])
def test_no_kind_is_turned(kind: str, orientation: int, packed: bool) -> None:
    how: dict[str, Any] = {"compression": "tiff_lzw"} if kind == "TIFF" and packed else {}
    data = kinds.turned(kind, orientation, **how)
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif()[0x112] == orientation
    assert probe(data)[1:] == (48, 32)
    for found in (np.asarray(decode(data)), pixels(data, header_of(data))):
        assert found.shape == kinds.FLAG_HW3.shape
        assert np.abs(found.astype(int) - kinds.FLAG_HW3).mean() < 6
    assert decode(data).getexif()[0x112] == orientation, "it goes on saying so"


@pytest.mark.parametrize("pages", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_deep_and_many_paged_tiffs_are_not_turned_either(bits: int, pages: int) -> None:
    values_HW = np.arange(30 * 20, dtype=np.uint16).reshape(20, 30) * 100
    raw = (values_HW >> 8).astype(np.uint8).tobytes() if bits == 8 else values_HW.astype("<u2").tobytes()
    for orientation in range(1, 9):
        data = kinds.tiff(raw, bits, size=(30, 20), pages=pages, t274=orientation)
        assert probe(data)[1:] == (30, 20)
        np.testing.assert_array_equal(np.asarray(decode(data))[:, :, 0], values_HW >> 8)


def test_turned_images_are_stored_alike_in_manifest_and_loader(build_files: Build, tmp_path: Path) -> None:
    data = build_files(
        {f"{kind.lower()}.{kind.lower()}": kinds.turned(kind, 6) for kind in ("JPEG", "PNG", "WEBP", "TIFF")}
    )
    table = data.table(["key", "width", "height"]).to_pylist()
    assert [(row["width"], row["height"]) for row in table] == [(48, 32)] * 4
    assert verify(tmp_path / "set") == []
    for image_HW3 in read_all(data)[0].values():
        assert image_HW3[40, 8, 0] > 200 > 50 > image_HW3[40, 8, 2]
        assert image_HW3[40, -8, 2] > 200 > 50 > image_HW3[40, -8, 0]


def test_resized_images_go_on_saying_that_they_are_to_be_turned(build_files: Build) -> None:
    kinds_ = ("JPEG", "PNG", "WEBP", "TIFF")
    data = build_files(
        {f"{k.lower()}.{k.lower()}": kinds.turned(k, 6) for k in kinds_}, resize={"short": 16, "quality": 95}
    )
    rows = data.table(["key", "file", "offset", "size", "width", "height"]).to_pylist()
    assert len(rows) == len(kinds_)
    with data.reader() as reader:
        for row in rows:
            with Image.open(io.BytesIO(reader.read(row["file"], row["offset"], row["size"]))) as image:
                assert image.size == (row["width"], row["height"]) == (24, 16)
                assert image.getexif()[0x112] == 6
                left, right = image.convert("RGB").getpixel((3, 12)), image.convert("RGB").getpixel((20, 12))
                assert left[0] > 180 > 80 > left[2]
                assert right[2] > 180 > 80 > right[0]


def test_resized_deep_image_keeps_its_picture(build_files: Build) -> None:
    data = build_files({"a.png": kinds.EXACT["png-grey"][0]}, resize={"short": 32, "quality": 95})
    [row] = data.table(["file", "offset", "size"]).to_pylist()
    with data.reader() as reader:
        found = np.asarray(decode(reader.read(row["file"], row["offset"], row["size"])))
    expected = kinds.EXACT["png-grey"][1].reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).mean() < 4


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body)) + bytes(64)
    )


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIIiHHIIIIII", 200, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


SIDES = {
    "png-tall": (png_header(12_405_119, 2_173_143_888), "a side of 2^31 pixels or more"),
    "png-wide": (png_header(2_337_276_672, 7), "a side of 2^31 pixels or more"),
    "png-just": (png_header(1 << 31, 7), "a side of 2^31 pixels or more"),
    "png-none": (png_header(0, 7), "a side of 0 pixels"),
    "gif-none": (b"GIF89a" + struct.pack("<HH", 5, 0) + bytes(30), "a side of 0 pixels"),
    "jpg-none": (
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 17, 8, 0, 9) + bytes(40), "a side of 0 pixels",
    ),
    "webp-none": (
        b"RIFF" + bytes(4) + b"WEBPVP8 " + bytes(10) + struct.pack("<HH", 0, 9) + bytes(20), "a side of 0 pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIDES)
def test_side_that_no_manifest_holds_is_refused_by_its_header(name: str) -> None:
    data, reason = SIDES[name]
    for look in (probe, decode, oddities, header_of):
        with pytest.raises(BadImage, match=f"^{re.escape(reason)}$"):
            look(data)


@pytest.mark.parametrize(
    "data",
    [
        bmp_header(0, 5),
        b"BM" + struct.pack("<IHHIIIIHHIIIIII", 200, 0, 0, 54, 40, 1 << 31, 5, 1, 24, 0, 0, 0, 0, 0, 0),
        b"P6 0 5 255\n",
        b"P6 9999999999 5 255\n",
        kinds.tiff(b"", 8, size=(0, 5)),
        kinds.tiff(b"", 8, size=((1 << 32) - 1, 5)),
    ],
)
def test_odd_sides_of_the_rarer_kinds_are_refused(data: bytes) -> None:
    with pytest.raises((BadImage, NeedMore)):
        probe(data)


def test_largest_side_that_a_manifest_holds_is_still_a_row() -> None:
    assert probe(png_header((1 << 31) - 1, 7)).width == (1 << 31) - 1


@pytest.mark.parametrize("source", ["folder", "shards"])
def test_build_counts_sides_that_no_manifest_holds(
    source: str, tmp_path: Path, write_recipe: Callable[..., Path]
) -> None:
    files = {f"c/{name}.{name[:3]}": data for name, (data, _) in SIDES.items() if name != "webp-none"}
    files["c/ok.png"] = kinds.EXACT["png"][0]
    for name, data in files.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        tar.add(tmp_path / "tree" / "c", "c")
    place = tmp_path / ("tree" if source == "folder" else "one.tar")
    path = write_recipe({"source": {source: str(place)}, "steps": []}, "set")
    info = build(load(path), tmp_path / "set", overlay=True)[0].dataset.info
    assert info.rows == 1
    assert {k: n for k, n in info.source["left_out"].items() if k.startswith("a side")} == {
        "a side of 2^31 pixels or more": 3, "a side of 0 pixels": 3,
    }  # fmt: skip


def test_directory_at_the_end_of_a_large_tiff_needs_more() -> None:
    raw = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8).tobytes()
    plain = kinds.tiff(raw, 8, size=(90, 90))
    with pytest.raises(NeedMore):
        probe(plain[:4096])
    assert probe(plain)[1:] == (90, 90)
    with pytest.raises(NeedMore):
        probe(b"II+\0\x08\0\0\0" + struct.pack("<Q", 9000) + bytes(4080))


def test_16_bits_are_noted_by_the_lint() -> None:
    for name in ("png-grey", "png-rgb", "tiff-grey", "tiff-rgb"):
        assert oddities(kinds.EXACT[name][0]) == ["16 bits a channel"], name
    assert oddities(kinds.EXACT["tiff"][0]) == []
