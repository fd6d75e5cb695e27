"""Tasks of public sets: small downloads in their layouts are opened, and class i's images are of class i."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from layouts import BUILDERS, Opened, open_all, shown
from PIL import Image

from curate import build, load
from curate.captions.templates import named, parse
from train.transfer import open_tasks
from train.transfer.splits import Files
from train.transfer.tasks.datasets import task_infos
from train.transfer.tasks.readers.labeled_files import labeled_file, shared_classes, size_notes

WITHOUT_DOWNLOAD = {"dataset", "digits", "folder", "synthetic"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """Every task of a download: where, what was written, and its partitions."""
    return open_all(tmp_path_factory.mktemp("downloads"))


def test_every_task_of_a_download_is_tested() -> None:
    others = {name for name in task_infos() if name.startswith("voc")}
    assert set(BUILDERS) == set(task_infos()) - WITHOUT_DOWNLOAD - others


@pytest.mark.parametrize("name", BUILDERS)
def test_label_i_is_of_the_ith_class(opened: Opened, name: str) -> None:
    _, built, tasks = opened[name]
    for task in tasks:
        assert task.classes == tuple(built.classes)
        pairs = shown(task, task.train) + shown(task, task.test)
        assert len(pairs) == built.train + built.test
        assert set(pairs) == set(built.classes.items())
        assert (len(task.train), len(task.test)) == (built.train, built.test)


@pytest.mark.parametrize("name", BUILDERS)
def test_listing_says_what_a_task_is(opened: Opened, name: str) -> None:
    info, tasks = task_infos()[name], opened[name][2]
    assert "http" in info.source
    assert "http" in info.get
    assert "below --data" in info.get
    assert info.sizes
    for task in tasks:
        assert (task.name, task.metric, task.flip) == (name, info.metric, True)
        assert len(parse(task.templates)) == len(set(task.templates)) >= 2


@pytest.mark.parametrize("name", BUILDERS)
def test_the_folder_itself_may_be_named_and_nothing_changes(opened: Opened, name: str) -> None:
    data, _, tasks = opened[name]
    [inside] = data.iterdir()
    again = open_tasks(name, [inside])
    assert [task.digest for task in again] == [task.digest for task in tasks]
    assert [task.train.keys for task in again] == [task.train.keys for task in tasks]


@pytest.mark.parametrize("name", BUILDERS)
def test_cut_is_noted_with_both_numbers(opened: Opened, name: str) -> None:
    _, built, tasks = opened[name]
    classes, train, test = task_infos()[name].sizes
    there = (17, 9) if name == "camera-traps" else (built.train, built.test)  # with what is left out
    wanted = [f"a cut: {there[0]} of {train:,} training images", f"a cut: {there[1]} of {test:,} test images"]
    if classes > len(built.classes):
        wanted.insert(0, f"a cut: {len(built.classes)} of {classes:,} classes")
    assert tasks
    assert all([note for note in task.notes if note.startswith("a cut: ")] == wanted for task in tasks)


def test_whole_set_has_no_note_even_where_chance_rounds_otherwise() -> None:
    assert size_notes((5, 17_117, 4_280), (5, 17_118, 4_279)) == []
    assert size_notes((5, 100, 20), (5, 90, 20)) == ["a cut: 90 of 100 training images"]
    assert size_notes((5, 100, 20), (6, 100, 20)) == ["6 classes, not the 5 published"]


@pytest.mark.parametrize("name", ["dtd", "sun397", "caltech101"])
def test_partitions_divide_the_same_images_otherwise(opened: Opened, name: str) -> None:
    data = opened[name][0]
    tasks = open_tasks(f"{name}:all", [data])
    assert [task.partition for task in tasks] == [str(p) for p in range(1, 11)]
    assert {task.name for task in tasks} == {name}
    assert len({task.classes for task in tasks}) == 1
    assert len({frozenset(task.test.keys) for task in tasks}) > 4
    assert all(not set(task.train.keys) & set(task.test.keys) for task in tasks)
    [third] = open_tasks(f"{name}:3", [data])
    assert third.digest == tasks[2].digest
    ranges: dict[str, Any] = {}
    for task in tasks:
        for split in (task.train, task.test):
            assert isinstance(split.images, Files)
            for key, place in zip(split.keys, split.images.ranges, strict=True):
                assert ranges.setdefault(key, place) == place


def test_partition_is_the_papers_where_none_is_named(opened: Opened) -> None:
    counts = {name: [task.partition for task in opened[name][2]] for name in ("dtd", "caltech101", "sun397")}
    assert counts["dtd"] == counts["caltech101"] == ["1"]
    assert len(counts["sun397"]) == 10


def test_dtd_trains_on_train_and_val_of_its_partition(opened: Opened) -> None:
    data, _, [task] = opened["dtd"]
    lists = {
        side: (data / "dtd" / "dtd" / "labels" / f"{side}1.txt").read_text().split()
        for side in ("train", "val", "test")
    }
    assert task.train.keys == tuple(file[:-4] for side in ("train", "val") for file in lists[side])
    assert task.test.keys == tuple(file[:-4] for file in lists["test"])


def test_caltech_trains_on_thirty_of_each_class_and_tests_on_all_others(opened: Opened) -> None:
    _, _, [task] = opened["caltech101"]
    assert np.bincount(task.train.labels).tolist() == [30, 30, 30, 30, 4]
    assert np.bincount(task.test.labels).tolist() == [3, 2, 1, 1, 1]
    assert "1 classes have at most 30 images: one is tested on, the others trained on" in task.notes
    assert "1 files left out: no image by their extension" in task.notes


@pytest.mark.parametrize("name", ["caltech101", "eurosat", "cassava"])
def test_chance_splits_stay_when_another_class_grows(tmp_path: Path, name: str) -> None:
    BUILDERS[name](tmp_path)
    [before] = open_tasks(name, [tmp_path])
    if name == "cassava":
        table = tmp_path / "cassava" / "train.csv"
        layouts.put(tmp_path / "cassava" / "train_images" / "9999.jpg", 14)
        table.write_text(table.read_text() + "9999.jpg,4\n")
    else:
        folder = sorted(path for path in tmp_path.rglob("*/*") if path.is_dir() and any(path.glob("*.jpg")))[
            -1
        ]
        layouts.put(folder / "more.jpg", before.test.labels[-1])
    [after] = open_tasks(name, [tmp_path])
    assert len(after.train) + len(after.test) == len(before.train) + len(before.test) + 1
    kept = [key for key, label in zip(before.test.keys, before.test.labels, strict=True) if label < 3]
    assert len(kept) > 2
    assert set(kept) <= set(after.test.keys)


def test_fifth_of_every_class_is_tested_on(opened: Opened) -> None:
    assert set(Counter(opened["eurosat"][2][0].test.labels).values()) == {2}
    assert np.bincount(opened["cassava"][2][0].test.labels).tolist() == [2, 2, 2, 6, 2]


def test_camera_traps_leave_out_what_has_not_one_animal(opened: Opened) -> None:
    _, _, [task] = opened["camera-traps"]
    assert "pair" in task.train.keys
    assert set(task.notes) >= {
        "a cut: 17 of 13,553 training images",
        "a cut: 9 of 15,827 test images",
        "train: 2 images left out: empty",
        "train: 1 images left out: several categories",
        "train: 1 images left out: without annotation",
        "cis_test: 1 images left out: empty",
    }


def test_animals_that_other_places_lack_are_left_out_there_and_counted(opened: Opened) -> None:
    [task] = open_tasks("camera-traps:trans", [opened["camera-traps"][0]])
    assert (
        task.name == "camera-traps-trans"
    )  # its results are not to be averaged with those at the same places
    assert task.classes == ("opossum", "bobcat", "coyote")
    assert {name for name, _ in shown(task, task.test)} == {"opossum", "bobcat", "coyote"}
    note = "train: 3 images left out: class 'car' is on this side of the official split alone"
    assert note in task.notes
    assert "a cut: 6 of 23,275 test images" in task.notes


def test_paintings_go_without_the_classes_that_the_official_lists_lack(tmp_path: Path) -> None:
    layouts.domainnet("painting")(tmp_path)
    file = tmp_path / "domainnet" / "painting_train.txt"
    layouts.write(file, [line for line in file.read_text().splitlines() if "t-shirt" not in line])
    [task] = open_tasks("domainnet-painting", [tmp_path])
    assert task.classes == ("aircraft carrier", "The Eiffel Tower", "zebra")
    assert (
        "test: 2 images left out: class 't-shirt' is on this side of the official split alone" in task.notes
    )
    assert "a cut: 4 of 345 classes" in task.notes


def test_only_known_classes_may_be_on_one_side() -> None:
    sides = [
        [labeled_file("a/1.jpg", "a"), labeled_file("b/1.jpg", "b")],
        [labeled_file("a/2.jpg", "a"), labeled_file("c/2.jpg", "c")],
    ]
    train, test, notes = shared_classes(*sides, {"c"})
    assert [one.class_id for one in train] == ["a", "b"]
    assert [one.class_id for one in test] == ["a"]
    assert len(notes) == 1


def test_list_that_repeats_an_image_counts_it_once(tmp_path: Path) -> None:
    layouts.dtd(tmp_path)
    file = tmp_path / "dtd" / "dtd" / "labels" / "test1.txt"
    first = file.read_text().split()[0]
    file.write_text(file.read_text() + f"\n{first}\n")
    [task] = open_tasks("dtd", [tmp_path])
    assert len(task.test) == 6
    assert "test: 1 lines left out, which repeat an image" in task.notes


def _kaggle(data: Path) -> Path:
    """Return ImageNet as Kaggle has it: validation images in one folder, and a table of their classes."""
    layouts.imagenet(data / "before")
    root = data / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.move(data / "before" / "imagenet" / "train", root / "train")
    (root / "val").mkdir()
    lines = ["ImageId,PredictionString"]
    for file in sorted((data / "before" / "imagenet" / "val").rglob("*.JPEG")):
        file.rename(root / "val" / file.name)
        lines.insert(1, f"{file.stem},{file.parent.name} 85 1 499 272 {file.parent.name} 1 2 3 4 ")
    layouts.write(data / "kaggle" / "LOC_val_solution.csv", lines)
    return data / "kaggle"


def test_imagenet_is_the_same_task_in_both_layouts(opened: Opened, tmp_path: Path) -> None:
    _, built, [folders] = opened["imagenet"]
    [flat] = open_tasks("imagenet", [_kaggle(tmp_path)])
    assert flat.classes == folders.classes
    assert set(shown(flat, flat.test)) == set(built.classes.items())
    assert sorted(flat.test.keys) == sorted(folders.test.keys)
    assert flat.templates == tuple(named("openai-80"))


def test_real_labels_are_those_of_the_images_number(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    lists: list[list[int]] = [[] for _ in range(50_000)]
    lists[0] = [836, 837]  # sunglass and sunglasses; the first of the last class
    lists[2] = [0, 999]  # tench, and a class that the cut has not
    (tmp_path / "imagenet" / "real.json").write_text(json.dumps(lists))
    [task] = open_tasks("imagenet", [tmp_path])
    accepted_NC = task.test.accepted
    assert accepted_NC is not None
    assert accepted_NC.dtype == bool
    at = {key: accepted_NC[i] for i, key in enumerate(task.test.keys)}
    assert [task.classes[i] for i in np.flatnonzero(at["val/ILSVRC2012_val_00000001"])] == [
        "sunglass",
        "sunglasses",
    ]
    assert [task.classes[i] for i in np.flatnonzero(at["val/ILSVRC2012_val_00000003"])] == ["tench"]
    assert accepted_NC.sum() == 3
    assert not any("real.json" in note for note in task.notes)


def test_imagenet_without_real_says_where_it_is(opened: Opened) -> None:
    [task] = opened["imagenet"][2]
    assert task.test.accepted is None
    assert "reassessed-imagenet" in next(note for note in task.notes if "real.json" in note)


@pytest.mark.parametrize("shards", [False, True], ids=["overlay", "shards"])
def test_dataset_that_was_built_is_a_task(tmp_path: Path, shards: bool) -> None:
    for number, of in enumerate(("red", "blue", "green")):
        for i in range(4 * 5):
            layouts.put(tmp_path / "pool" / ("train" if i % 5 else "val") / of / f"{i}.jpg", number + 60)
    recipe = tmp_path / "three.yaml"
    recipe.write_text(f"name: three\nseed: 0\nsource: {{folder: {tmp_path / 'pool'}}}\nsteps: []\n")
    [built] = build(load(recipe), tmp_path / "built", overlay=not shards)
    [task] = open_tasks(f"dataset:{built.dataset.path}")
    assert (task.name, task.classes) == ("three", ("blue", "green", "red"))
    assert (len(task.train), len(task.test)) == (48, 12)
    colours = {"red": 60, "blue": 61, "green": 62}
    assert set(shown(task, task.train)) == set(shown(task, task.test)) == set(colours.items())


# The real sets, cut.


def _unpack(shared: Path, name: str, place: Path) -> Path:
    archive = shared / "data" / f"{name}.tar"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    with tarfile.open(archive) as packed:
        packed.extractall(place, filter="data")
    return place / name


def test_caltech_cut_of_real_images_opens(shared: Path, tmp_path: Path) -> None:
    root = _unpack(shared, "caltech101", tmp_path / "unpacked")
    (tmp_path / "caltech101").mkdir()
    root.rename(tmp_path / "caltech101" / "101_ObjectCategories")
    [task] = open_tasks("caltech101", [tmp_path])
    assert (len(task.classes), len(task.train), len(task.test)) == (51, 51 * 13, 51)
    assert task.classes[:4] == ("background", "face up close", "motorbike", "airplane")
    assert "water lily" in task.classes
    assert "a cut: 51 of 102 classes" in task.notes
    assert min(task.train.images.decode(0).size) > 32


def test_pets_cut_of_real_images_opens(shared: Path, tmp_path: Path) -> None:
    root, place = _unpack(shared, "pets", tmp_path / "unpacked"), tmp_path / "oxford-iiit-pet"
    (place / "images").mkdir(parents=True)
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for number, folder in enumerate(sorted(root.iterdir(), key=lambda f: f.name.lower()), 1):
        for i, file in enumerate(sorted(folder.iterdir())):
            file.rename(place / "images" / file.name)
            lists["test" if i == 3 else "trainval"].append(f"{file.stem} {number} 1 1")
    for side, lines in lists.items():
        layouts.write(place / "annotations" / f"{side}.txt", lines)
    [task] = open_tasks("pets", [tmp_path])
    assert (len(task.classes), len(task.train), len(task.test)) == (19, 57, 19)
    breeds = [key.rpartition("_")[0].replace("_", " ") for key in task.test.keys]
    assert breeds == [task.classes[label] for label in task.test.labels]
    assert isinstance(task.test.images.decode(18), Image.Image)
