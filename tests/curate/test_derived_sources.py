"""Sets made from sets: the sources `dataset` and `shards`, over our own tars and over those of others."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

from curate.builds import build, shard
from curate.checks import verify
from curate.datasets import Dataset
from curate.errors import DataError, RecipeError
from curate.recipes import load

Built = Callable[..., Dataset]
Jpeg = Callable[..., bytes]
STEPS: list[Any] = [{"per_class": 8}, {"caption": {"templates": ["a photo of a {}."]}}]


@pytest.fixture
def built_from(write_recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., Dataset]:
    """Build from any source: `built_from({"dataset": path}, [step, …], name)`."""

    def make(
        source: dict[str, Any], steps: list[Any] | None = None, name: str = "derived", **how: Any
    ) -> Dataset:
        path = write_recipe({"source": source, "steps": steps or [], "samples_per_shard": 16}, name)
        [result] = build(load(path), tmp_path / name, **how)
        return result.dataset

    return make


def images(dataset: Dataset) -> dict[str, bytes]:
    reader = dataset.reader()
    rows = dataset.table(["key", "file", "offset", "size"]).to_pylist()
    return {row["key"]: reader.read(row["file"], row["offset"], row["size"]) for row in rows}


def originals(pool: Path) -> dict[str, bytes]:
    return {f"{f.parent.name}/{f.stem}": f.read_bytes() for f in pool.glob("*/*.jpg")}


def names(dataset: Dataset) -> dict[str, str]:
    rows = dataset.table(["key", "label"]).to_pylist()
    return {row["key"]: dataset.classes[row["label"]].name for row in rows}


@pytest.mark.parametrize("overlay", [True, False])
def test_subset_of_a_dataset_points_to_the_same_bytes(
    built: Built, built_from: Built, pool: Path, overlay: bool
) -> None:
    base = built(STEPS, "base", overlay=overlay)
    subset = built_from({"dataset": str(base.path)}, [{"per_class": 3}], overlay=True)
    assert len(subset) == 18
    assert images(subset).items() <= originals(pool).items()
    assert names(subset).items() <= names(base).items()
    assert subset.classes == base.classes
    assert set(subset.table(["caption"])["caption"].to_pylist()) <= set(
        base.table(["caption"])["caption"].to_pylist()
    )


def test_overlay_of_an_overlay_gets_its_shards_from_the_pool(
    built: Built, built_from: Built, pool: Path
) -> None:
    base = built(STEPS, "base")
    second = built_from({"dataset": str(base.path)}, [{"per_class": 4}], "second", overlay=True)
    third = built_from({"dataset": str(second.path)}, [{"per_class": 2}], "third", overlay=True)
    assert not third.sharded
    for file in base.path.iterdir():  # nothing of the sets between is needed any more
        file.unlink()
    made = shard(third.path).dataset
    assert images(made).items() <= originals(pool).items()
    assert len(images(made)) == 12
    assert verify(made.path) == []


def test_change_of_the_dataset_below_is_seen(built: Built, built_from: Built) -> None:
    source = {"dataset": str(built([{"per_class": 5}], "base").path)}
    first = built_from(source)
    built([{"per_class": 6}], "base")
    second = built_from(source)
    assert (len(first), len(second)) == (30, 36)


def test_own_shards_read_as_tars_give_the_same_rows(built: Built, built_from: Built, pool: Path) -> None:
    base = built(STEPS, "base", overlay=False)
    read = built_from({"shards": str(base.path / "shards")}, overlay=True)
    assert images(read) == images(base)
    assert [c.wnid for c in read.classes] == [c.wnid for c in base.classes]  # by the column `wnid`
    assert names(read) == names(base)
    columns = ["key", "ext", "width", "height", "label", "caption", "template", "wnid"]
    both = [sorted(d.table(columns).to_pylist(), key=lambda row: row["key"]) for d in (read, base)]
    assert both[0] == both[1]


def test_noisy_shards_read_as_tars_keep_their_numbers(built: Built, built_from: Built) -> None:
    base = built([{"noise": {"rate": 0.5}}], "base", overlay=False)
    read = built_from({"shards": f"{base.path}/shards/{{000000..000003}}.tar"}, overlay=True)
    columns = ["key", "label", "clean_label"]
    both = [sorted(d.table(columns).to_pylist(), key=lambda row: row["key"]) for d in (read, base)]
    assert both[0] == both[1]
    assert [c.name for c in read.classes] == ["0", "1", "2", "3", "4", "5"]
    assert read.info.columns["clean_label"] == "INTEGER"


@pytest.fixture
def others(tmp_path: Path, jpeg: Jpeg) -> Path:
    """Tars as the webdataset library writes them, in two folders."""
    for part in range(2):
        folder = tmp_path / "others" / f"part{part}"
        folder.mkdir(parents=True)
        with wds.ShardWriter(str(folder / "%03d.tar"), maxcount=6, verbose=0) as sink:
            for i in range(10):
                number = part * 10 + i
                sink.write(
                    {
                        "__key__": f"s{number:03d}",
                        "jpg": jpeg(number),
                        "cls": number % 3,
                        "txt": f"caption {number}, with ü",
                        "json": {"similarity": number / 10, "tags": ["a", "b"], "sha256": f"{number:064x}"},
                    }
                )
    return tmp_path / "others"


def test_tars_of_the_webdataset_library_are_read(built_from: Built, others: Path, jpeg: Jpeg) -> None:
    read = built_from({"shards": str(others)}, overlay=True)
    assert images(read) == {f"s{i:03d}": jpeg(i) for i in range(20)}
    rows = {row["key"]: row for row in read.table().to_pylist()}
    row = rows["s013"]
    assert (row["label"], row["caption"], row["similarity"]) == (1, "caption 13, with ü", 1.3)
    assert (row["ext"], row["width"], row["height"]) == ("jpg", 40, 32)
    assert json.loads(row["tags"]) == ["a", "b"]
    assert row["file"] == "part1/000.tar"
    assert [c.name for c in read.classes] == ["0", "1", "2"]


@pytest.mark.parametrize("form", ["pattern", "braces", "list", "relative list"])
def test_tars_may_be_named_in_several_ways(
    built_from: Built, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir("/")  # relative paths start at the recipe
    forms: dict[str, Any] = {
        "pattern": f"{others}/*/*.tar",
        "braces": f"{others}/part{{0..1}}/{{000..001}}.tar",
        "list": [f"{others}/part0", f"{others}/part1/000.tar", f"{others}/part1/001.tar"],
        "relative list": ["others/part0", "others/part1"],
    }
    assert len(built_from({"shards": {"path": forms[form]}}, overlay=True)) == 20


def test_subset_of_foreign_tars_becomes_shards_that_verify(
    built_from: Built, others: Path, jpeg: Jpeg
) -> None:
    made = built_from({"shards": str(others)}, [{"where": "similarity < 0.95"}])
    assert images(made) == {f"s{i:03d}": jpeg(i) for i in range(10)}
    assert verify(made.path) == []


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_samples_that_are_no_row_are_counted_by_reason(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    tar = write_tar(
        tmp_path / "a.tar",
        [("a.jpg", jpeg(1)), ("a.cls", b"0"), ("b.cls", b"1"), ("c.jpg", b""), ("d.jpg", b"<html>")],
    )
    made = built_from({"shards": str(tar)}, overlay=True)
    assert len(made) == 1
    assert made.info.source["left_out"] == {"without an image": 1, "empty": 1, "not an image": 1}
    notes = made.info.ledger[0].notes
    assert any("without an image" in note and "a.tar: b" in note for note in notes)


def test_class_names_of_others_are_labelled_in_their_order(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = [(f"{i}.{kind}", data) for i, name in enumerate(["dog", "ant", "dog"])
               for kind, data in (("jpg", jpeg(i)), ("cls", name.encode()))]  # fmt: skip
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["ant", "dog"]
    assert names(made) == {"0": "dog", "1": "ant", "2": "dog"}


def test_one_key_in_two_tars_is_refused_with_both_names(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / "tars" / f"{name}.tar", [("same.jpg", jpeg(1)), ("same.cls", b"0")])
    with pytest.raises(DataError, match=r"'same' is a.tar and b.tar"):
        built_from({"shards": str(tmp_path / "tars")}, overlay=True)


@pytest.mark.parametrize("cut", [1024, 512 * 3 + 100, 700])
def test_tar_that_was_cut_is_refused(built_from: Built, tmp_path: Path, jpeg: Jpeg, cut: int) -> None:
    tar = write_tar(tmp_path / "a.tar", [(f"{i}.jpg", jpeg(i)) for i in range(4)])
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.tar: (not a sound tar|cut at byte)"):
        built_from({"shards": str(tar)}, overlay=True)


def test_compressed_tar_is_refused(built_from: Built, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(RecipeError, match=r"a.tar.gz: not a plain .tar(?s:.*)unpack it"):
        built_from({"shards": str(tmp_path / "a.tar.gz")})


def test_labels_that_leave_out_a_number_become_dense(built_from: Built, tmp_path: Path, jpeg: Jpeg) -> None:
    members = [(f"{i}.{kind}", data) for i, label in enumerate([5, 2, 5])
               for kind, data in (("jpg", jpeg(i)), ("cls", str(label).encode()))]  # fmt: skip
    made = built_from({"shards": str(write_tar(tmp_path / "a.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["2", "5"]
    assert names(made) == {"0": "5", "1": "2", "2": "5"}
