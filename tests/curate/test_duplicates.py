"""`hashes`, `dedup` and `decontaminate`: images that are there twice, or in a test set."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import imagehash
import numpy as np
import pytest
from PIL import Image

from curate.builds import build
from curate.datasets import Dataset
from curate.errors import CurateError
from curate.hashes import groups, near_query
from curate.recipes import load

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
    rows = take([{"hashes": {"kinds": ["sha256", "phash"]}}]).table(["file", "sha256", "phash"]).to_pylist()
    assert len(rows) == 9
    for row in rows:
        data = (photos / row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        if row["file"] == "dog/b9.jpg":
            assert row["phash"] is None
        else:
            with Image.open(photos / row["file"]) as image:
                assert row["phash"] == int(str(imagehash.phash(image.convert("RGB"))), 16)


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


@pytest.mark.parametrize("distance", [1, 2, 4, 7])
def test_bands_find_every_pair_within_the_distance(distance: int) -> None:
    generator = np.random.default_rng(0)
    base = generator.integers(0, 2**64, 40, dtype=np.uint64)
    flips = [
        sum(1 << int(b) for b in generator.choice(64, n, replace=False)) for n in (0, 1, 2, 3, 4, 6, 7, 8)
    ]
    values = sorted({int(b) ^ f for b in base for f in flips})
    expected = {
        (a, b) for i, a in enumerate(values) for b in values[i + 1 :] if (a ^ b).bit_count() <= distance
    }
    assert expected
    with duckdb.connect() as con:
        con.execute("CREATE TABLE h (hash UBIGINT)")
        con.executemany("INSERT INTO h VALUES (?)", [[v] for v in values])
        found = set(
            con.execute(f"SELECT a, b FROM ({near_query('h', 'h', distance)}) WHERE a < b").fetchall()
        )
    assert found == expected


def test_likeness_is_handed_on() -> None:
    found = groups([(1, 2), (5, 4), (2, 3), (9, 3)])
    assert found == {1: 1, 2: 1, 3: 1, 9: 1, 4: 4, 5: 4}
