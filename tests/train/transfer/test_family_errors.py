"""Downloads that are missing, damaged or of another task are refused, with where and what next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import BUILDERS, put, python2

from curate import build, load
from curate.errors import CurateError, DataError, MissingError, RecipeError
from train.transfer import open_tasks
from train.transfer.tasks.datasets import task_infos

Damage = Callable[[Path], None]


def write(file: str, text: str | bytes) -> Damage:
    """Replace a file."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda data: (data / file).write_bytes(content) and None


def remove(file: str) -> Damage:
    """Remove a file or folder."""

    def act(data: Path) -> None:
        shutil.rmtree(data / file) if (data / file).is_dir() else (data / file).unlink()

    return act


def change(file: str, before: str, after: str) -> Damage:
    """Replace a text in a file, which must have it."""

    def act(data: Path) -> None:
        text = (data / file).read_text()
        assert before in text
        (data / file).write_text(text.replace(before, after))

    return act


def without(file: str, word: str) -> Damage:
    """Drop the lines of a list that hold a word."""

    def act(data: Path) -> None:
        lines = (data / file).read_text().splitlines()
        kept = [line for line in lines if word not in line]
        assert 0 < len(kept) < len(lines)
        layouts.write(data / file, kept)

    return act


def traps(change: Callable[[dict], None], side: str = "train") -> Damage:
    """Change what an annotation file of the camera traps holds."""

    def act(data: Path) -> None:
        file = data / "cct20" / "eccv_18_annotation_files" / f"{side}_annotations.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return act


def real(lists: object) -> Damage:
    """Put ReaL's labels beside the images."""
    return write("imagenet/real.json", json.dumps(lists))


TEN, HUNDRED = "cifar-10-batches-py", "cifar-100-python"
BATCH = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
LABELS = "dtd/dtd/labels"
PETS = "oxford-iiit-pet/annotations"
CASES: list[tuple[str, Damage, type[CurateError], str]] = [
    ("cifar10", remove(f"{TEN}/data_batch_4"), MissingError, "data_batch_4: there is no such file"),
    ("cifar10", write(f"{TEN}/data_batch_4", b"\x80\x02}q\x01"), DataError, "data_batch_4: is damaged"),
    ("cifar10", write(f"{TEN}/data_batch_4", python2([1])), DataError, "holds a list where a dict"),
    (
        "cifar10",
        write(f"{TEN}/test_batch", python2({**BATCH, "labels": [0, 10]})),
        DataError,
        "test_batch: label 10 where batches.meta has 10 names",
    ),
    ("cifar10", write(f"{TEN}/test_batch", python2({**BATCH, "labels": [0]})), DataError, r"\(2, 3072\)"),
    (
        "cifar10",
        write(f"{TEN}/test_batch", python2({"data": [1], "labels": [0]})),
        DataError,
        "'data' is list",
    ),
    ("cifar10", write(f"{TEN}/test_batch", python2({"data": [1]})), DataError, "no list of whole numbers"),
    ("cifar10", write(f"{TEN}/test_batch", python2(BATCH)), DataError, "test: no image of class 'bird'"),
    (
        "cifar100",
        write(f"{HUNDRED}/meta", python2({"x": 1})),
        DataError,
        "no list of names 'fine_label_names'",
    ),
    (
        "cifar100",
        write(f"{HUNDRED}/train", python2(BATCH)),
        DataError,
        "no list of whole numbers 'fine_labels'",
    ),
    ("dtd", remove(f"{LABELS}/val1.txt"), MissingError, "val1.txt: there is no such file"),
    (
        "dtd",
        write(f"{LABELS}/val1.txt", "\n\nbanded/x y.jpg\n"),
        DataError,
        "val1.txt, line 3: .* has 2 words",
    ),
    ("dtd", write(f"{LABELS}/val1.txt", "banded_0001.jpg\n"), DataError, "line 1: .* is no CLASS/IMAGE"),
    ("dtd", write(f"{LABELS}/val1.txt", b"\xff\xfe\x00"), DataError, "val1.txt: cannot be read"),
    (
        "dtd",
        remove("dtd/dtd/images/blotchy"),
        MissingError,
        "4 of 12 images are not there, such as images/blotchy/",
    ),
    ("dtd", without(f"{LABELS}/test1.txt", "banded"), DataError, "dtd, test: no image of class 'banded'"),
    ("dtd", change(f"{LABELS}/val1.txt", "banded/", "../"), DataError, "is outside of it"),
    (
        "dtd",
        change(f"{LABELS}/val1.txt", "banded/banded_0003", "banded/banded_0005"),
        DataError,
        "1 images are in train and in test",
    ),
    ("caltech101", remove("caltech101/101_ObjectCategories"), MissingError, "task caltech101: none of"),
    (
        "caltech101",
        lambda data: [f.unlink() for f in sorted(data.rglob("water_lilly/*"))[1:]] and None,
        DataError,
        "water_lilly: 1 images, and training and testing need one each",
    ),
    ("pets", change(f"{PETS}/test.txt", "Abyssinian_10 1", "Abyssinian_10 2"), DataError, "label [12] for"),
    (
        "pets",
        change(f"{PETS}/test.txt", "Abyssinian_10 1", "Abyssinian_10 one"),
        DataError,
        "'one' is no number",
    ),
    (
        "pets",
        change(f"{PETS}/test.txt", "Bengal_10 6", "Bengal 6"),
        DataError,
        "'Bengal' is no breed and number",
    ),
    ("pets", remove(f"{PETS}/test.txt"), MissingError, "test.txt: there is no such file"),
    ("pets", remove("oxford-iiit-pet/images/Bengal_2.jpg"), MissingError, "1 of 9 images are not there"),
    (
        "domainnet-real",
        change("domainnet/real_test.txt", "zebra/real_004_000007.jpg 3", "zebra/real_004_000007.jpg 2"),
        DataError,
        "real_test.txt, line 1: label 2 for 'zebra', which is 'The_Eiffel_Tower' elsewhere",
    ),
    (
        "domainnet-real",
        change("domainnet/real_train.txt", "real/zebra", "clipart/zebra"),
        DataError,
        "is no real/",
    ),
    (
        "domainnet-real",
        without("domainnet/real_test.txt", "t-shirt"),
        DataError,
        "test: no image of class 't-shirt'",
    ),
    (
        "domainnet-painting",
        without("domainnet/painting_test.txt", "zebra"),
        DataError,
        "no image of class 'zebra'",
    ),
    ("domainnet-real", remove("domainnet/real"), MissingError, "12 of 12 images are not there"),
    (
        "eurosat",
        lambda data: put(data / "eurosat/2750/Cat/1.jpg", 1),
        DataError,
        "Cat: is no class of EuroSAT",
    ),
    (
        "eurosat",
        lambda data: [f.unlink() for f in data.rglob("River/*")] and None,
        DataError,
        "class 'a river'",
    ),
    (
        "cassava",
        change("cassava/train.csv", "image_id,label", "id,label"),
        DataError,
        "train.csv, line 1: the columns",
    ),
    (
        "cassava",
        change("cassava/train.csv", "4009.jpg,4", "4009.jpg,7"),
        DataError,
        "line 2: label '7' has no name",
    ),
    (
        "cassava",
        change("cassava/train.csv", "4009.jpg,4", "4009.jpg,4,4"),
        DataError,
        "line 2: 3 values for 2",
    ),
    ("cassava", change("cassava/train.csv", "4009.jpg,4", '"4009.jpg,4'), DataError, "train.csv, line"),
    ("cassava", change("cassava/train.csv", "4009.jpg,4", "4008.jpg,3"), DataError, "is of '3' and of '4'"),
    ("cassava", write("cassava/train.csv", ""), DataError, "train.csv: is empty"),
    ("cassava", write("cassava/label_num_to_disease_map.json", "{"), DataError, "map.json: is no JSON"),
    (
        "cassava",
        write("cassava/label_num_to_disease_map.json", "[1]"),
        DataError,
        "is no map of labels to names",
    ),
    (
        "cassava",
        change("cassava/label_num_to_disease_map.json", '"4"', '"5"'),
        DataError,
        "labels are not 0 to 4",
    ),
    (
        "camera-traps",
        write("cct20/eccv_18_annotation_files/train_annotations.json", "[]"),
        DataError,
        "no list 'cat",
    ),
    (
        "camera-traps",
        traps(lambda c: c["images"][1].pop("id")),
        DataError,
        r"images\[1\]: has no 'id' that is text",
    ),
    (
        "camera-traps",
        traps(lambda c: c["annotations"][2].update(category_id=77)),
        DataError,
        r"\[2\]: category 77",
    ),
    (
        "camera-traps",
        traps(lambda c: c["annotations"][2].update(image_id="x")),
        DataError,
        "of image 'x', which",
    ),
    (
        "camera-traps",
        traps(lambda c: c["categories"].pop(3), "cis_test"),
        DataError,
        "category 33 has no name",
    ),
    (
        "camera-traps",
        traps(lambda c: c["categories"].append({"id": 5, "name": "cat"}), "cis_test"),
        DataError,
        "are not those of train_annotations.json",
    ),
    (
        "camera-traps",
        traps(
            lambda c: c.update(annotations=[a for a in c["annotations"] if a["category_id"] != 33]),
            "cis_test",
        ),
        DataError,
        "camera-traps, test: no image of class 'car'",
    ),
    (
        "sun397",
        change("SUN397/Testing_03.txt", "/b/beach/", "/b/bench/"),
        DataError,
        "Testing_03.txt, line",
    ),
    ("sun397", remove("SUN397/Testing_10.txt"), MissingError, "Testing_10.txt: there is no such file"),
    (
        "sun397",
        change("SUN397/ClassName.txt", "/b/beach\n", ""),
        DataError,
        "is of no class that ClassName.txt names",
    ),
    ("imagenet", remove("imagenet/val"), MissingError, "val: there is no such folder"),
    ("imagenet", remove("imagenet/val/n01440764"), DataError, "test: no image of class 'tench'"),
    (
        "imagenet",
        lambda data: put(data / "imagenet/train/cat/1.JPEG", 1),
        DataError,
        "'cat' is no id of WordNet",
    ),
    ("imagenet", real([[]] * 49_999), DataError, "real.json: is no list of 50,000 lists"),
    ("imagenet", real([[]] * 49_999 + [[1000]]), DataError, r"image 50000: \[1000\] is no list of labels"),
]


@pytest.mark.parametrize(
    ("name", "damage", "error", "says"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)]
)
def test_damage_is_said_with_its_place(
    tmp_path: Path, name: str, damage: Damage, error: type[CurateError], says: str
) -> None:
    BUILDERS[name](tmp_path)
    assert open_tasks(name, [tmp_path])
    damage(tmp_path)
    with pytest.raises(error, match=says) as caught:
        open_tasks(name, [tmp_path])
    assert caught.value.hint


@pytest.mark.parametrize("name", BUILDERS)
def test_data_of_another_task_or_none_is_said_with_where_to_get_it(tmp_path: Path, name: str) -> None:
    other = "dtd" if name != "dtd" else "pets"
    BUILDERS[other](tmp_path)
    get = task_infos()[name].get
    for data in ([tmp_path], [next(tmp_path.iterdir())], [tmp_path / "dtd", tmp_path], []):
        if all(folder.is_dir() for folder in data):
            with pytest.raises(MissingError, match=f"task {name}: ") as caught:
                open_tasks(name, data)
            assert get in caught.value.hint
    with pytest.raises(RecipeError, match="there is no such folder"):
        open_tasks(name, [tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pets:1", "takes no argument"),
        ("dtd:0", "no such partition"),
        ("dtd:11", "no such partition"),
        ("caltech101:one", "no such partition"),
        ("sun397:11", "no such partition"),
        ("camera-traps:val", "no such test set"),
        ("dataset", "needs a path"),
        ("dataset:/nowhere", "not a dataset"),
        ("domainnet", "no task 'domainnet'"),
    ],
)
def test_wrong_argument_says_what_there_is(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        open_tasks(name, [tmp_path])
    assert caught.value.hint


def test_flat_validation_images_need_the_table_of_their_classes(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    root = tmp_path / "imagenet"
    for folder in list((root / "val").iterdir()):
        for file in folder.iterdir():
            file.rename(root / "val" / file.name)
        folder.rmdir()
    with pytest.raises(MissingError, match=r"LOC_val_solution\.csv"):
        open_tasks("imagenet", [tmp_path])
    lines = ["ImageId,PredictionString", "ILSVRC2012_val_00000001,tench 1 2 3 4"]
    layouts.write(root / "LOC_val_solution.csv", lines)
    with pytest.raises(DataError, match=r"csv, line 2: 'tench' is no id of WordNet"):
        open_tasks("imagenet", [tmp_path])


def test_names_that_are_not_official_have_no_real_labels(tmp_path: Path) -> None:
    layouts.imagenet(tmp_path)
    put(tmp_path / "imagenet" / "val" / "n01440764" / "mine.JPEG", 50)
    real([[]] * 50_000)(tmp_path)
    [task] = open_tasks("imagenet", [tmp_path])
    assert task.test.accepted is None
    assert "real.json is not used: it goes by names such as ILSVRC2012_val_00000001" in task.notes


@pytest.mark.parametrize(
    ("places", "error", "says"),
    [
        (
            ("train/a", "train/b"),
            RecipeError,
            "its splits are train, and a task needs train, and test or val",
        ),
        (("val/a", "val/b"), RecipeError, "its splits are val, and a task needs"),
        (("a", "b"), RecipeError, "its splits are none, and a task needs"),
        (("train/a", "train/b", "test/a"), DataError, "test: no image of class 'b'"),
        (("train/a", "test/a"), RecipeError, "1 classes"),
    ],
)
def test_dataset_that_is_no_task_is_refused(tmp_path: Path, places, error: type, says: str) -> None:
    for number, place in enumerate(places):
        for i in range(2):
            put(tmp_path / "pool" / place / f"{number}{i}.jpg", number)
    recipe = tmp_path / "made.yaml"
    recipe.write_text(f"name: made\nseed: 0\nsource: {{folder: {tmp_path / 'pool'}}}\nsteps: []\n")
    [built] = build(load(recipe), tmp_path / "built", overlay=True)
    with pytest.raises(error, match=says) as caught:
        open_tasks(f"dataset:{built.dataset.path}")
    assert caught.value.hint


def test_dataset_leaves_out_what_is_of_no_side_and_counts_it(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b", "val/a", "val", "train"):
        put(tmp_path / "pool" / place / "1.jpg", 1)
    recipe = tmp_path / "made.yaml"
    recipe.write_text(f"name: made\nseed: 0\nsource: {{folder: {tmp_path / 'pool'}}}\nsteps: []\n")
    [built] = build(load(recipe), tmp_path / "built", overlay=True)
    [task] = open_tasks(f"dataset:{built.dataset.path}")
    assert (len(task.train), len(task.test)) == (2, 2)
    assert task.notes == (
        "2 images left out: without a label",
        "1 images left out: of the split val",
    )
