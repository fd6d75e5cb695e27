"""`hashes`, `dedup` and `decontaminate`: images that are there twice, or in a test set."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import imagehash
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.errors import CurateError
from curate.ops import _near_duplicates
from curate.ops._hashing import perceptual_hashes
from curate.ops._near_duplicates import DISTANCE, TELLING_BITS, groups, near_query
from curate.recipes.recipe import load

Build = Callable[..., Dataset]


def picture(number: int, *, size: int = 64, quality: int = 90) -> bytes:
    """Return a JPEG of smooth blobs, alike for one number at any size and quality."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize((256, 256), Image.Resampling.BICUBIC).resize((size, size)).save(
        stream, "JPEG", quality=quality
    )
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Write a pool: 1 and 2 stand there twice byte for byte, 3 once more smaller and compressed again, 9 is damaged."""
    files = {
        "cat/a1.jpg": picture(1), "cat/a2.jpg": picture(2), "cat/a3.jpg": picture(3, size=128),
        "cat/a4.jpg": picture(4), "dog/b1.jpg": picture(1), "dog/b2.jpg": picture(2),
        "dog/b3.jpg": picture(3, size=64, quality=70), "dog/b5.jpg": picture(5), "dog/b9.jpg": picture(9)[:900],
    }  # fmt: skip
    for name, data in files.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "photos"


@pytest.fixture
def take(photos: Path, write_recipe: Callable[..., Path], tmp_path: Path) -> Build:
    """Build a set over the photos: `take([{"dedup": …}], "name")`."""

    def make(steps: list[Any], name: str = "set", folder: Path = photos) -> Dataset:
        path = write_recipe({"source": {"folder": str(folder)}, "steps": steps}, name)
        return build(load(path), tmp_path / name, overlay=True)[0].dataset

    return make


def keys(dataset: Dataset) -> set[str]:
    return set(dataset.table(["key"])["key"].to_pylist())


def test_hashes_are_those_of_hashlib_and_imagehash(take: Build, photos: Path) -> None:
    (photos / "cat" / "wide.png").write_bytes(scene(1, (320, 200)))
    columns = ["file", "sha256", "phash", "phash_square"]
    rows = take([{"hashes": {"kinds": ["sha256", "phash"]}}]).table(columns).to_pylist()
    assert len(rows) == 10
    for row in rows:
        data = (photos / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        if row["file"] == "dog/b9.jpg":
            assert row["phash"] is row["phash_square"] is None
            continue
        with Image.open(photos / row["file"]) as image:
            square = image.crop((60, 0, 260, 200)) if image.width > image.height else image
            assert row["phash"] == int(str(imagehash.phash(image.convert("RGB"))), 16)
            assert row["phash_square"] == int(str(imagehash.phash(square.convert("RGB"))), 16)
            assert (row["phash"] == row["phash_square"]) == (image.width == image.height)


def test_column_that_is_there_stays_and_the_other_is_added(take: Build) -> None:
    given = {"compute": {"columns": {"phash": "7::UBIGINT"}}}
    made = take([{"where": "key = 'cat/a1'"}, given, {"hashes": {"kinds": ["phash"]}}])
    [row] = made.table(["phash", "phash_square"]).to_pylist()
    assert row == {"phash": 7, "phash_square": perceptual_hashes(picture(1))[1]}


def test_dedup_by_bytes_keeps_the_first_of_equal_files(take: Build) -> None:
    assert len(keys(take([], "all"))) == 9
    one = take([{"dedup": {"by": "bytes"}}])
    assert keys(one) == {"cat/a1", "cat/a2", "cat/a3", "cat/a4", "dog/b3", "dog/b5", "dog/b9"}
    assert one.info.ledger[-1].refused == {"same bytes as another image": 2}


def test_dedup_by_likeness_also_finds_a_smaller_copy(take: Build) -> None:
    assert keys(take([{"dedup": {"by": "phash"}}])) == {
        "cat/a1", "cat/a2", "cat/a3", "cat/a4", "dog/b5", "dog/b9",
    }  # fmt: skip
    larger = take([{"dedup": {"by": "phash", "prefer": "largest"}}], "larger")
    assert "cat/a3" in keys(larger)  # 128 pixels against 64


def test_prefer_largest_keeps_the_larger_copy_even_when_its_key_is_later(take: Build, photos: Path) -> None:
    (photos / "dog" / "z3.jpg").write_bytes(picture(3, size=256))
    left = keys(take([{"dedup": {"by": "phash", "prefer": "largest"}}]))
    assert "dog/z3" in left
    assert not left & {"cat/a3", "dog/b3"}


def test_flagged_duplicates_stay_with_their_reason(take: Build) -> None:
    flagged = take([{"dedup": {"keep": "flag"}}]).table(["key", "rejected"]).to_pylist()
    assert len(flagged) == 9
    assert {r["key"] for r in flagged if r["rejected"]} == {"dog/b1", "dog/b2"}
    [*_, step] = take([{"dedup": {"keep": "flag"}}]).info.ledger
    assert step.refused == {"flagged: same bytes as another image": 2}


def test_hash_columns_give_the_same_answer_as_reading_the_bytes(take: Build) -> None:
    direct = take([{"dedup": {"by": "phash"}}], "direct")
    kept = take([{"hashes": {"kinds": ["phash"]}}, {"dedup": {"by": "phash"}}], "kept")
    assert keys(direct) == keys(kept)


@pytest.mark.parametrize(
    ("by", "gone"), [("bytes", {"cat/a1", "dog/b1"}), ("phash", {"cat/a1", "dog/b1", "cat/a3", "dog/b3"})]
)
def test_images_of_a_test_set_leave(take: Build, tmp_path: Path, by: str, gone: set[str]) -> None:
    (tmp_path / "test" / "x").mkdir(parents=True)
    (tmp_path / "test" / "x" / "1.jpg").write_bytes(picture(1))
    (tmp_path / "test" / "x" / "3.jpg").write_bytes(picture(3, size=100, quality=60))
    (tmp_path / "test" / "x" / "7.jpg").write_bytes(picture(7))
    take([], "test-set", folder=tmp_path / "test")
    fair = take([{"decontaminate": {"against": "test-set", "by": by}}], "fair")
    assert keys(take([], "all")) - keys(fair) == gone
    [reason] = fair.info.ledger[-1].refused
    assert "test-set" in reason


def test_bytes_are_read_after_any_step(take: Build, tmp_path: Path) -> None:
    take([], "test-set", folder=tmp_path / "photos")
    steps: list[Any] = [{"sample": {"number": 8}}, {"caption_from": {"columns": ["ext"]}}, "language"]
    with pytest.raises(CurateError, match=r"step 4 \(decontaminate\): no rows are left of 8: 8 same bytes"):
        take([*steps, {"decontaminate": {"against": "test-set", "by": "bytes"}}], "none")


def test_another_test_set_makes_another_plan(take: Build, tmp_path: Path) -> None:
    (tmp_path / "test" / "x").mkdir(parents=True)
    (tmp_path / "test" / "x" / "1.jpg").write_bytes(picture(1))
    take([], "test-set", folder=tmp_path / "test")
    steps = [{"decontaminate": {"against": "test-set", "by": "bytes"}}]
    before = keys(take(steps, "fair"))
    (tmp_path / "test" / "x" / "2.jpg").write_bytes(picture(2))
    take([], "test-set", folder=tmp_path / "test")
    assert before - keys(take(steps, "fair")) == {"cat/a2", "dog/b2"}


def test_a_test_set_outside_the_recipes_folder_needs_set(
    take: Build, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.raises(CurateError, match="outside the recipe's folder"):
        take([{"decontaminate": {"against": str(tmp_path_factory.mktemp("elsewhere"))}}])


@pytest.mark.parametrize(
    "step", [{"distance": 3}, {"by": "bytes", "distance": 0}, {"by": "phash", "distance": 17}]
)
def test_dedup_refuses_a_distance_that_means_nothing(take: Build, step: dict[str, Any]) -> None:
    with pytest.raises(CurateError, match="distance"):
        take([{"dedup": step}])


def scene(number: int, size: tuple[int, int] = (480, 320)) -> bytes:
    """Return a PNG of shapes of all sizes, as unlike another number's as photographs are."""
    generator = np.random.default_rng(number)
    total = np.zeros((size[1], size[0], 3))
    for cells in (2, 4, 8, 16):
        coarse = generator.normal(0, 90 / cells**0.5, (cells, cells * 3 // 2, 3)) + 128
        coarse = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        total += np.asarray(coarse, float) - 128
    stream = io.BytesIO()
    Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def middle(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def compressed(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def resized_or_recompressed(image: Image.Image) -> list[bytes]:
    """Copies that show all of an image."""
    found = [compressed(image, quality) for quality in (30, 50, 95)]
    for scale, method, quality in (
        (0.25, "BICUBIC", 75),
        (0.33, "BILINEAR", 50),
        (0.5, "BOX", 30),
        (1.5, "LANCZOS", 75),
    ):
        size = (round(image.width * scale), round(image.height * scale))
        found.append(compressed(image.resize(size, Image.Resampling[method]), quality))
    return [*found, compressed(image.resize((64, 64), Image.Resampling.BICUBIC), 90)]


def middle_squares(image: Image.Image) -> list[bytes]:
    """Copies that show its middle square, as image sets of one size do."""
    return [
        compressed(middle(image).resize((side, side), Image.Resampling.BICUBIC), q)
        for side, q in ((64, 75), (224, 50))
    ]


def distance_of(a: tuple[int, int], b: tuple[int, int]) -> int:
    """In how many bits the nearest hashes of two images differ."""
    return min((one ^ other).bit_count() for one in a for other in b)


def assert_copies_are_found(images: list[bytes]) -> None:
    hashes, distances = [], []
    for data in images:
        original = perceptual_hashes(data)
        assert original is not None
        hashes.append(original)
        with Image.open(io.BytesIO(data)) as image:
            for copies in (resized_or_recompressed, middle_squares):
                found = [perceptual_hashes(copy) for copy in copies(image.convert("RGB"))]
                distances.append([distance_of(original, one) for one in found if one])
    for kind in (distances[::2], distances[1::2]):
        all_of_a_kind = np.concatenate(kind)
        assert (all_of_a_kind <= DISTANCE).mean() >= 0.95
    others = [distance_of(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert sum(far <= DISTANCE for far in others) <= 1e-5 * len(others)


def test_copies_of_drawn_scenes_are_found_and_no_other() -> None:
    assert_copies_are_found([scene(number, (240, 160)) for number in range(20)])


def test_copies_of_photographs_are_found_and_no_other(shared: Path) -> None:
    with tarfile.open(shared / "data" / "imagenet-sample.tar") as tar:
        members = [m for m in tar if m.isfile() and m.name.endswith(".JPEG")][::4]
        assert_copies_are_found([tar.extractfile(m).read() for m in members])  # type: ignore[union-attr]


def test_odd_distances_are_even_ones() -> None:
    found = [perceptual_hashes(scene(number, (160, 96))) for number in range(20)]
    assert {hash_.bit_count() for pair in found if pair for hash_ in pair} == {32}


def test_middle_square_of_another_image_leaves(take: Build, tmp_path: Path) -> None:
    (tmp_path / "wide" / "x").mkdir(parents=True)
    for number in (1, 2, 3):
        (tmp_path / "wide" / "x" / f"{number}.png").write_bytes(scene(number))
    with Image.open(io.BytesIO(scene(2))) as image:
        (tmp_path / "wide" / "x" / "2square.jpg").write_bytes(compressed(middle(image).resize((64, 64)), 80))
        (tmp_path / "wide" / "x" / "2narrow.jpg").write_bytes(compressed(image.crop((40, 0, 440, 320)), 80))
        test = compressed(middle(image).resize((96, 96)), 60)
    one = take([{"dedup": {"by": "phash", "prefer": "largest"}}], "one", tmp_path / "wide")
    assert keys(one) == {"x/1", "x/2", "x/3"}
    (tmp_path / "test" / "x").mkdir(parents=True)
    (tmp_path / "test" / "x" / "1.jpg").write_bytes(test)
    take([], "test-set", folder=tmp_path / "test")
    fair = take([{"decontaminate": {"against": "test-set"}}], "fair", tmp_path / "wide")
    assert keys(fair) == {"x/1", "x/3"}
    [count] = fair.info.ledger[-1].refused.values()
    assert count == 3
    # and the other way round: the test set has the whole, the set squares of it
    back = take([{"where": "key LIKE 'x/2_%'"}], "squares", tmp_path / "wide")
    assert keys(back) == {"x/2square", "x/2narrow"}
    with pytest.raises(CurateError, match="no rows are left of 1"):
        take([{"decontaminate": {"against": "squares"}}], "none", tmp_path / "test")


def test_stripes_and_plain_colours_are_not_compared_and_counted(take: Build, tmp_path: Path) -> None:
    (tmp_path / "plain" / "x").mkdir(parents=True)
    images = {f"stripes{width}": np.arange(128) // width % 2 * 255 for width in (8, 16, 32)}
    images |= {f"grey{value}": np.full(128, value) for value in (60, 200)}
    for name, rows in images.items():
        data = io.BytesIO()
        Image.fromarray(np.repeat(rows.astype(np.uint8)[:, None], 128, axis=1)).save(data, "PNG")
        (tmp_path / "plain" / "x" / f"{name}.png").write_bytes(data.getvalue())
        assert perceptual_hashes(data.getvalue())[0].bit_count() < TELLING_BITS  # type: ignore[index]
    (tmp_path / "plain" / "x" / "scene.png").write_bytes(scene(1, (160, 96)))
    (tmp_path / "plain" / "x" / "scene-again.png").write_bytes(scene(1, (160, 96)))
    made = take([{"dedup": {"by": "phash"}}], "one", tmp_path / "plain")
    assert keys(made) == {f"x/{name}" for name in images} | {"x/scene"}
    [note] = made.info.ledger[-1].notes
    assert note.startswith("5 images not compared")
    same = take([{"decontaminate": {"against": "one"}}], "two", tmp_path / "plain")
    assert keys(same) == {f"x/{name}" for name in images}
    assert same.info.ledger[-1].notes == [note]


@pytest.mark.parametrize("distance", [0, 1, 2, 4, 7, 8, 12, 16])
@pytest.mark.parametrize("sizes", [(10, 10), (1 << 20, 1 << 20), (1 << 20, 10_000), (200, 10_000_000)])
def test_search_finds_every_pair_within_the_distance(distance: int, sizes: tuple[int, int]) -> None:
    generator = np.random.default_rng(distance)
    base = generator.integers(0, 2**64, 40, dtype=np.uint64)
    flips = [
        sum(1 << int(b) for b in generator.choice(64, n, replace=False))
        for n in {0, 1, distance - 1, distance, distance + 1} if n >= 0
    ]  # fmt: skip
    values = sorted({int(b) ^ f for b in base for f in flips})
    few = values[::3]
    expected = {(a, b) for a in values for b in few if (a ^ b).bit_count() <= distance}
    assert any(a != b for a, b in expected) or not distance
    with duckdb.connect() as con:
        for name, some in (("h", values), ("few", few)):
            con.register(name, pa.table({"hash": pa.array(some, pa.uint64())}))
        assert set(con.execute(near_query("h", "few", distance, sizes)).fetchall()) == expected


def test_search_of_many_is_cut_so_that_little_is_looked_at() -> None:
    for distance in range(17):
        for count in (100, 100_000, 10_000_000):
            bands = _near_duplicates._bands(distance, count, count)
            assert sum(width for _, width, _ in bands) == 64
            assert [first for first, _, _ in bands] == [
                sum(w for _, w, _ in bands[:i]) for i in range(len(bands))
            ]
            assert sum(radius + 1 for _, _, radius in bands) == distance + 1, "or a pair could be missed"


def test_likeness_is_handed_on() -> None:
    hashes, tops = groups(np.array([(1, 2), (5, 4), (2, 3), (9, 3), (7, 2**64 - 1)], np.uint64))
    assert dict(zip(hashes.tolist(), tops.tolist(), strict=True)) == {
        1: 1, 2: 1, 3: 1, 9: 1, 4: 4, 5: 4, 7: 7, 2**64 - 1: 7,
    }  # fmt: skip
    assert [len(found) for found in groups(np.empty((0, 2), np.uint64))] == [0, 0]
