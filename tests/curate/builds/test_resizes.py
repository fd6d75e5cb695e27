"""Images made smaller at build time: which, how small, and what then says so."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curate.builds.build import build
from curate.builds.shards.resizing import Resized, _time_ratio, gains
from curate.datasets.dataset import SHARD_INDEX, Dataset, open_dataset
from curate.datasets.verification import verify
from curate.errors import RecipeError
from curate.io.byte_ranges import ByteRangeReader
from curate.recipes.recipe import Recipe

SMALL = {"short": 64, "quality": 90}
MakeRecipe = Callable[..., Recipe]
Tree = Callable[[Path], dict[str, str]]


def picture(width: int, height: int, form: str, mode: str = "RGB", **how: Any) -> bytes:
    """Return a smooth image, so that compression loses little of it."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([x * 255, y * 255, (1 - x) * 255], axis=2).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **how)
    return stream.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010F] = "a camera"
    return exif


IMAGES = {
    "wide.jpg": picture(256, 128, "JPEG"),
    "tall.png": picture(100, 300, "PNG", "RGBA"),
    "grey.jpg": picture(130, 130, "JPEG", "L"),
    "turned.jpg": picture(200, 128, "JPEG", exif=turned()),
    "small.jpg": picture(64, 640, "JPEG"),
    "tiny.webp": picture(20, 20, "WEBP"),
    "cut.jpg": picture(256, 256, "JPEG")[:1500],
}
SIZES = {
    "wide": (128, 64), "tall": (64, 192), "grey": (64, 64), "turned": (100, 64),
    "small": (64, 640), "tiny": (20, 20), "cut": (256, 256),
}  # fmt: skip
KEPT = ("small.jpg", "tiny.webp", "cut.jpg")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def resized(built: Callable[..., Dataset], photos: Path) -> Dataset:
    return built([], "small", overlay=False, source={"folder": str(photos)}, resize=SMALL)


def contents(dataset: Dataset) -> dict[str, bytes]:
    table = dataset.table()
    read = dataset.reader().read_many(*(table[c].to_pylist() for c in ("file", "offset", "size")))
    names = [
        f"{key}.{ext}" for key, ext in zip(table["key"].to_pylist(), table["ext"].to_pylist(), strict=True)
    ]
    assert all(isinstance(data, bytes) for data in read)
    return dict(zip(names, read, strict=True))  # type: ignore[arg-type]


def test_large_images_are_made_smaller_and_others_keep_their_bytes(resized: Dataset) -> None:
    found = contents(resized)
    assert set(found) == {"wide.jpg", "tall.jpg", "grey.jpg", "turned.jpg", *KEPT}
    assert {name: found[name] for name in KEPT} == {name: IMAGES[name] for name in KEPT}
    for name in found.keys() - set(KEPT):
        with Image.open(io.BytesIO(found[name])) as image:
            assert (image.format, image.size) == ("JPEG", SIZES[name.split(".")[0]])


def test_smaller_image_shows_the_same(resized: Dataset) -> None:
    for name, data in contents(resized).items():
        before = next(old for known, old in IMAGES.items() if known.split(".")[0] == name.split(".")[0])
        if name != "cut.jpg":
            with Image.open(io.BytesIO(before)) as old, Image.open(io.BytesIO(data)) as new:
                wanted = np.asarray(old.convert("RGB").resize(new.size, Image.Resampling.BOX), float)
                assert np.abs(wanted - np.asarray(new.convert("RGB"), float)).mean() < 4


def test_orientation_stays_and_other_metadata_goes(resized: Dataset) -> None:
    with Image.open(io.BytesIO(contents(resized)["turned.jpg"])) as image:
        assert dict(image.getexif()) == {0x0112: 6}


def test_table_tar_and_index_say_the_new_sizes(resized: Dataset) -> None:
    assert [(p.where, p.what) for p in verify(resized.path)] == [("cut", "truncated")]
    rows = {row["key"]: row for row in resized.table().to_pylist()}
    assert {key: (row["width"], row["height"]) for key, row in rows.items()} == SIZES
    with tarfile.open(resized.path / "shards/000000.tar") as tar:
        for member in tar:
            if member.name.endswith(".json"):
                told = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
                row = rows[told["key"]]
                assert {c: told[c] for c in ("size", "ext", "width", "height")} == {
                    c: row[c] for c in ("size", "ext", "width", "height")
                }
    assert resized.info.bytes == sum(row["size"] for row in rows.values())


def test_resized_set_has_another_digest_and_plan(
    resized: Dataset, built: Callable[..., Dataset], photos: Path
) -> None:
    source = {"folder": str(photos)}
    plain = built([], "small", out=photos.parent / "plain", overlay=False, source=source)
    coarse = {"short": 64, "quality": 50}
    rougher = built([], "small", out=photos.parent / "r", overlay=False, source=source, resize=coarse)
    assert len({resized.digest, plain.digest, rougher.digest}) == 3
    assert len({resized.info.plan, plain.info.plan, rougher.info.plan}) == 3


def test_what_cannot_be_decoded_is_counted_with_its_reason(resized: Dataset) -> None:
    record = resized.info.ledger[-1]
    assert (record.step, record.arguments) == ("resize", SMALL)
    assert record.notes == ["4 of 7 images made smaller", "1 kept as they are: truncated"]


def test_gain_is_told_by_build_and_show(
    resized: Dataset, run_curate: Callable[..., Any], photos: Path
) -> None:
    told = json.loads((resized.path / "build.json").read_text())["resize"]
    before = sum(map(len, IMAGES.values()))
    assert told["bytes_ratio"] == round(resized.info.bytes / before, 4)
    assert told["decode_time_ratio"] > 0
    shown = run_curate("show", resized.path).stdout
    command = ["build", photos.parent / "small.yaml", "--out", resized.path]
    assert json.loads(run_curate(*command, "--json").stdout)[0]["resize"] == told
    again = run_curate(*command).stdout
    for said in (shown, again):
        assert "4 of 7 images made smaller" in said
        assert f"{told['bytes_ratio']:.2f} of the bytes, {told['decode_time_ratio']:.2f} of the time" in said


def test_gain_in_time_is_that_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, slow = [0.0], iter([9.0, 9.0])  # some other work, in the first decodings

    def decodes(data: bytes) -> None:
        clock[0] += len(data) + next(slow, 0.0)

    monkeypatch.setattr("curate.builds.shards.resizing.decode", decodes)
    monkeypatch.setattr("curate.builds.shards.resizing.time.perf_counter", lambda: clock[0])
    assert _time_ratio([bytes(40), bytes(60)], [bytes(10), bytes(15)]) == 0.25


def test_image_that_is_smaller_in_as_many_bytes_is_timed(tmp_path: Path) -> None:
    large, small = picture(1280, 1280, "JPEG"), picture(64, 64, "JPEG")
    small += bytes(len(large) - len(small))
    rows = {"file": ["a"], "offset": [0], "size": [len(large)], "width": [1280], "height": [1280]}
    for folder, data in (("before", large), ("after/shards", small)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a").write_bytes(data)
    index = pa.table(rows | {"file": ["shards/a"], "width": [64], "height": [64]})
    pq.write_table(index, tmp_path / "after" / SHARD_INDEX)
    with ByteRangeReader(tmp_path / "before") as reader:
        told = gains(Resized(1, 1, len(large), len(large)), pa.table(rows), reader, tmp_path / "after")
    assert 0 < told["decode_time_ratio"] < 1


@pytest.mark.parametrize("workers", [1, 3])
def test_number_of_workers_and_shards_changes_no_image(
    recipe: MakeRecipe, photos: Path, tmp_path: Path, resized: Dataset, workers: int
) -> None:
    made = recipe([], source={"folder": str(photos)}, resize=SMALL, samples_per_shard=2)
    [again] = build(made, tmp_path / "again", workers=workers)
    assert contents(again.dataset) == contents(resized)
    assert again.dataset.info.ledger[-1] == resized.info.ledger[-1]


def test_set_over_a_resized_one_reads_the_smaller_images(
    resized: Dataset, built_from: Callable[..., Dataset]
) -> None:
    derived = built_from({"dataset": str(resized.path)}, [{"where": "height <= 64"}])
    assert set(contents(derived)) == {"wide.jpg", "grey.jpg", "turned.jpg", "tiny.webp"}
    assert verify(derived.path) == []


def test_overlay_with_resize_is_refused(recipe: MakeRecipe, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)resize makes new bytes.*hint: leave out --overlay"):
        build(recipe([], source={"folder": str(photos)}, resize=SMALL), tmp_path / "set", overlay=True)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "value", [{"short": 0}, {"quality": 90}, {"short": 64, "quality": 101}, 64, {"shirt": 5}]
)
def test_wrong_resize_is_told(recipe: MakeRecipe, value: Any) -> None:
    with pytest.raises(RecipeError, match="resize"):
        recipe([], resize=value)


def test_killed_resizing_goes_on_to_the_same_bytes(
    recipe: MakeRecipe, photos: Path, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe([], source={"folder": str(photos)}, resize=SMALL, samples_per_shard=1)
    build(made, tmp_path / "whole")
    from curate.builds.shards import writing

    calls: list[int] = []

    def stops(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return resize(*args)

    resize = writing.resized
    monkeypatch.setattr(writing, "resized", stops)
    with pytest.raises(KeyboardInterrupt):
        build(made, tmp_path / "set", workers=1)
    build(made, tmp_path / "set")
    assert tree(tmp_path / "set") == tree(tmp_path / "whole")
    assert open_dataset(tmp_path / "set").info.ledger[-1].step == "resize"
