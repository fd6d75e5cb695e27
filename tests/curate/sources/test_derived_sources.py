"""Sets made from sets: the source `dataset`, and `shards` over tars of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.builds.sharding import shard
from curate.datasets.dataset import Dataset
from curate.datasets.verification import verify

Built = Callable[..., Dataset]
STEPS: list[Any] = [{"per_class": 8}, {"caption": {"templates": ["a photo of a {}."]}}]


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
