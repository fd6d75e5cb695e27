"""A pool that changes, goes stale or goes away while a set is made of it: refused by name, nothing published."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from curate.builds.build import build
from curate.builds.sharding import shard
from curate.datasets.dataset import Dataset
from curate.errors import DataError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.progress import Quiet, Stage
from curate.recipes.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
FILE = "n02084071/n02084071_3.jpg"


class Before(Quiet):
    """Does something when the shards are about to be written, long after the source was indexed."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        if title == "writing shards":
            self.act()
        yield Stage()


@pytest.fixture
def own_pool(pool: Path, tmp_path: Path) -> Path:
    """A pool to change."""
    return Path(shutil.copytree(pool, tmp_path / "own"))


@pytest.mark.parametrize("change", ["grown", "cut", "empty", "gone", "a folder"])
def test_file_that_changed_after_the_index_is_refused_by_name(
    recipe: MakeRecipe, own_pool: Path, tmp_path: Path, change: str
) -> None:
    file = own_pool / FILE
    data = {"grown": file.read_bytes() + b"x", "cut": file.read_bytes()[:-1], "empty": b""}.get(change)

    def act() -> None:
        file.unlink()
        if change == "a folder":
            file.mkdir()
        if data is not None:
            file.write_bytes(data)

    told = r"n02084071_3\.jpg: .*(where \d+ were indexed|cannot be read)"
    with pytest.raises(DataError, match=told):
        build(recipe([], source={"folder": str(own_pool)}), tmp_path / "set", progress=Before(act))
    assert not (tmp_path / "set").exists()


def test_other_bytes_of_the_same_length_are_refused_where_hashes_are_known(
    recipe: MakeRecipe, own_pool: Path, tmp_path: Path
) -> None:
    file = own_pool / FILE
    other = bytes(len(file.read_bytes()))
    made = recipe([{"hashes": {"kinds": ["sha256"]}}], source={"folder": str(own_pool)})
    with pytest.raises(DataError, match=r"n02084071_3\.jpg: .*sha256 differs"):
        build(made, tmp_path / "set", progress=Before(lambda: file.write_bytes(other)))
    assert not (tmp_path / "set").exists()


def test_column_sha256_that_is_not_ours_is_not_held_against_the_bytes(
    recipe: MakeRecipe, built: Callable[..., Dataset]
) -> None:
    made = built([{"compute": {"sha256": "md5(key)"}}], overlay=False)
    assert made.sharded
    assert len(made) == 60


@pytest.mark.parametrize("change", ["other samples", "samples gone", "cut", "gone", "zeros"])
def test_tar_that_is_no_longer_the_indexed_one_is_refused_by_name(
    recipe: MakeRecipe, built: Callable[..., Dataset], tmp_path: Path, change: str
) -> None:
    pool = built([], "pool", overlay=False)
    tar = pool.path / "shards/000001.tar"
    build(recipe([], source={"shards": str(pool.path / "shards")}), tmp_path / "set", overlay=True)
    if change in ("other samples", "samples gone"):
        members = []
        with tarfile.open(tar) as old:
            for member in old:
                members.append((member, old.extractfile(member).read()))  # type: ignore[union-attr]
        members = members[4:] if change == "samples gone" else members[::-1]
        with tarfile.open(tar, "w") as new:
            for member, data in members:
                (tmp_path / "member").write_bytes(data)
                with open(tmp_path / "member", "rb") as stream:
                    new.addfile(member, stream)
    elif change == "cut":
        tar.write_bytes(tar.read_bytes()[:9000])
    elif change == "zeros":
        tar.write_bytes(bytes(tar.stat().st_size))
    else:
        tar.unlink()
    with pytest.raises(DataError, match=r"000001\.tar: .*(was indexed|were indexed|cannot be read)"):
        shard(tmp_path / "set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
        "README.md", "build.json", "dataset.json", "manifest.parquet",
    ]  # fmt: skip


def test_pool_that_disappears_leaves_the_old_set(
    recipe: MakeRecipe, own_pool: Path, tmp_path: Path, tree: Callable[[Path], dict[str, bytes]]
) -> None:
    source = {"folder": str(own_pool)}
    build(recipe([], source=source), tmp_path / "set")
    before = tree(tmp_path / "set")
    with pytest.raises(DataError, match="the pool moved or lost a file"):
        build(
            recipe([{"sample": 30}], source=source), tmp_path / "set",
            progress=Before(lambda: own_pool.rename(tmp_path / "away")),
        )  # fmt: skip
    assert tree(tmp_path / "set") == before


def test_threads_that_open_and_forget_tars_read_the_right_bytes(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.tar").write_bytes(bytes([i]) * 4096)
    reader = ByteRangeReader(tmp_path)

    def look(seed: int) -> set[bool]:
        found = set()
        for k in range(500):
            if k % 5 == 0:
                reader.close()
            i = (seed * 7 + k) % 8
            found.add(reader.read(f"{i}.tar", 1024, 100) == bytes([i]) * 100)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert set().union(*pool.map(look, range(4))) == {True}
