"""Tasks: opened by name, checked, decoded once."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from built_tasks import make_split
from PIL import Image
from torchvision.transforms import v2

from curate.errors import CurateError, DataError, RecipeError
from train.transfer import Files, Task, open_tasks
from train.transfer.images import SquareView, count_bytes, load_images, square


def test_digits_open_without_a_network(digits: Task) -> None:
    assert digits.classes == tuple("0123456789")
    assert (len(digits.train), len(digits.test)) == (1198, 599)
    assert not set(digits.train.hashes) & set(digits.test.hashes)
    found = load_images(digits, SquareView(16)).train
    assert found.squares.images.shape == (1198, 3, 16, 16)
    assert found.squares.images.dtype == torch.uint8
    assert (found.squares.images.amin(), found.squares.images.amax()) == (0, 255)


def test_folder_with_both_sides_keeps_them(make_folder) -> None:
    root = make_folder({"train/zebra": 3, "train/ant": 4, "test/ant": 2, "test/zebra": 1})
    task = open_tasks(f"folder:{root}")[0]
    assert task.name == "pictures"
    assert task.classes == ("ant", "zebra")
    assert task.train.labels == (0, 0, 0, 0, 1, 1, 1)
    assert task.test.keys == ("test/ant/0", "test/ant/1", "test/zebra/0")


def test_label_i_is_of_the_ith_class(tmp_path: Path) -> None:
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
    for side in ("train", "test"):
        for name, colour in colours.items():
            (tmp_path / side / name).mkdir(parents=True)
            Image.new("RGB", (9, 7), colour).save(tmp_path / side / name / f"{side}.png")
    task = open_tasks(f"folder:{tmp_path}")[0]
    for i, label in enumerate(task.train.targets):
        assert task.train.images.decode(i).getpixel((3, 3)) == colours[task.classes[label]]


def test_val_stands_in_for_test_only_where_there_is_none(make_folder) -> None:
    two = make_folder({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1}, "two")
    assert set(open_tasks(f"folder:{two}")[0].test.keys) == {"val/a/0", "val/b/0"}
    both = {"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "test/a": 1, "test/b": 1}
    three = open_tasks(f"folder:{make_folder(both, 'three')}")[0]
    assert set(three.test.keys) == {"test/a/0", "test/b/0"}
    assert len(three.train) == 4


def test_flat_folder_gives_a_fifth_of_each_class_for_testing(make_folder) -> None:
    root = make_folder({"a": 10, "b": 20, "c": 2})
    task = open_tasks(f"folder:{root}")[0]
    assert np.bincount(task.test.targets).tolist() == [2, 4, 1]
    assert np.bincount(task.train.targets).tolist() == [8, 16, 1]
    assert open_tasks(f"folder:{root}")[0].test.keys == task.test.keys


def test_flat_folder_keeps_its_test_images_when_a_class_is_added(make_folder) -> None:
    root = make_folder({"a": 10, "b": 20})
    before = set(open_tasks(f"folder:{root}")[0].test.keys)
    (root / "c").mkdir()
    for i in range(5):
        Image.new("RGB", (8, 8), (i, i, i)).save(root / "c" / f"{i}.png")
    after = set(open_tasks(f"folder:{root}")[0].test.keys)
    assert len(before) == 6
    assert before < after


def test_digest_follows_the_bytes_and_not_the_place(make_folder, tmp_path: Path) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    before = open_tasks(f"folder:{root}")[0].digest
    moved = tmp_path / "elsewhere" / "pictures"
    shutil.copytree(root, moved)
    assert open_tasks(f"folder:{moved}")[0].digest == before
    Image.new("RGB", (12, 10), (1, 2, 3)).save(moved / "test" / "a" / "0.png")
    assert open_tasks(f"folder:{moved}")[0].digest != before


def test_files_that_are_as_they_were_are_not_read_again_for_the_digest(make_folder, monkeypatch) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    before = open_tasks(f"folder:{root}")[0].digest
    read = Files.read
    seen: list[int] = []
    monkeypatch.setattr(Files, "read", lambda self, index: seen.append(index) or read(self, index))
    assert open_tasks(f"folder:{root}")[0].digest == before
    assert seen == []
    Image.new("RGB", (12, 10), (1, 2, 3)).save(root / "test" / "a" / "0.png")
    assert open_tasks(f"folder:{root}")[0].digest != before
    assert len(seen) == 2  # of the side that changed


def test_broken_images_are_left_out_counted_and_named(make_folder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    picture = root / "test" / "b" / "1.png"
    picture.write_bytes(picture.read_bytes()[:45])  # its header is whole, its pixels are not
    found = load_images(open_tasks(f"folder:{root}")[0], SquareView(8))
    assert len(found.test) == 3
    assert found.test.targets.tolist() == [0, 0, 1]
    assert len(found.test.squares) == 3
    assert "test: 1 images left out, which do not decode (test/b/1: " in found.notes[0]


def test_pixels_stay_with_their_labels_when_an_image_before_them_is_broken(make_folder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    task = open_tasks(f"folder:{root}")[0]
    whole = load_images(task, SquareView(8)).train
    (root / "train" / "a" / "1.png").write_bytes((root / "train" / "a" / "1.png").read_bytes()[:45])
    part = load_images(open_tasks(f"folder:{root}")[0], SquareView(8)).train
    assert part.keys == whole.keys[:1] + whole.keys[2:]
    assert torch.equal(part.squares.images, whole.squares.images[[0, 2, 3, 4, 5]])


def test_class_whose_only_image_is_broken_is_missing(make_folder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 1})
    picture = root / "test" / "b" / "0.png"
    picture.write_bytes(picture.read_bytes()[:45])
    with pytest.raises(DataError, match=r"test .*no image of class 'b'"):
        load_images(open_tasks(f"folder:{root}")[0], SquareView(8))


def test_images_of_the_test_set_are_in_no_training_set(make_folder) -> None:
    root = make_folder({"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2})
    shutil.copy(root / "test" / "b" / "0.png", root / "train" / "a" / "copy.png")
    task = open_tasks(f"folder:{root}")[0]
    found = load_images(task, SquareView(8))
    assert "train/a/copy" in task.train.keys
    assert "train/a/copy" not in found.train.keys
    assert (len(found.train), len(found.test)) == (6, 4)
    assert found.notes == ("train: 1 images left out, identical to test images (such as train/a/copy)",)


def test_files_that_are_no_images_are_counted(make_folder) -> None:
    root = make_folder({"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1})
    (root / "train" / "a" / "notes.txt").write_text("not an image")
    (root / "train" / "loose.png").write_bytes((root / "train" / "a" / "0.png").read_bytes())
    assert open_tasks(f"folder:{root}")[0].notes == (
        "1 files left out: no image by its extension",
        "1 images left out: in no class folder",
    )


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    ending = "jpg" if mode == "CMYK" else "png"
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (9, 7), (number * 50, 9, 90)).convert(mode).save(tmp_path / place / f"x.{ending}")
    assert load_images(open_tasks(f"folder:{tmp_path}")[0], SquareView(6)).train.squares.images.shape == (
        2,
        3,
        6,
        6,
    )


@pytest.mark.parametrize("size", [(50, 37), (37, 50), (32, 32), (20, 90)])
def test_square_is_a_resize_of_the_short_side_and_a_centre_crop(size: tuple[int, int]) -> None:
    rough = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)
    usual = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])
    assert torch.equal(square(image, SquareView(32)), v2.functional.pil_to_tensor(usual(image)))


def test_decoding_happens_once_for_each_size(digits: Task) -> None:
    assert (
        load_images(digits, SquareView(16)).train.squares.images
        is load_images(digits, SquareView(16)).train.squares.images
    )
    assert load_images(digits, SquareView(8)).train.squares.images.shape[-1] == 8


def test_images_used_longest_ago_are_forgotten_where_memory_is_short(digits: Task, monkeypatch) -> None:
    tasks = [dataclasses.replace(digits, name=f"digits-{i}") for i in range(4)]
    monkeypatch.setattr(
        "train.transfer.images._memory", lambda: 5 * count_bytes(digits, SquareView(8))
    )  # two fit
    for task in (tasks[0], tasks[1], tasks[0], tasks[2]):
        load_images(task, SquareView(8))
    assert [SquareView(8) in task.__dict__["_images"] for task in tasks[:3]] == [True, False, True]


def test_task_can_be_opened_under_a_name_of_its_own(make_folder) -> None:
    root = make_folder({"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1}, "odd=name")
    assert open_tasks(f"pets=folder:{root}")[0].name == "pets"
    assert open_tasks(f"folder:{root}")[0].name == "odd=name"


@pytest.mark.parametrize(
    ("sizes", "error", "says"),
    [
        ({"train/a": 2, "train/b": 2, "test/a": 1}, DataError, "test: no image of class 'b'"),
        ({"train/a": 2, "test/a": 1, "test/b": 1}, DataError, "train: no image of class 'b'"),
        (
            {"train/a": 2, "train/b": 2, "train/c": 0, "test/a": 1, "test/b": 1},
            DataError,
            "no image of class 'c'",
        ),
        ({"train/a": 2, "train/b": 2}, RecipeError, "train/ alone"),
        ({"a": 2, "b": 1}, DataError, "class 'b' has 1 images"),
        ({"a": 5}, DataError, "1 classes"),
        ({"inner/train/a": 5, "inner/test/a": 5}, RecipeError, "one level too high"),
        ({"train": 0, "test": 0}, RecipeError, "no images"),
        ({"train": 3, "test": 3}, DataError, "no image is in a class folder"),
    ],
)
def test_folder_that_is_no_task_is_refused(make_folder, sizes: dict, error: type, says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        open_tasks(f"folder:{make_folder(sizes)}")[0]
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("folder:/nowhere/at/all", "there is nothing", "PATH holds"),
        (f"folder:{__file__}", "not a folder", "PATH holds"),
        ("folder", "needs a path", "folder:PATH"),
        ("digits:8", "takes no argument", "digits"),
        ("digit", "no task 'digit'", "did you mean 'digits'"),
        ("xyz", "no task 'xyz'", "folder:PATH"),
    ],
)
def test_wrong_name_of_a_task_says_what_there_is(name: str, says: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        open_tasks(name)
    assert hint in caught.value.hint


def _task(
    classes: tuple[str, ...] = ("a", "b"), train=(0, 1), test=(0, 1), prefixes=("train-", "test-")
) -> Task:
    images = np.zeros((8, 4, 4, 3), dtype=np.uint8)
    sides = [
        make_split(images[: len(ls)], list(ls), p) for ls, p in zip((train, test), prefixes, strict=True)
    ]
    return Task("made", classes, *sides)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"train": (0, 1, 2)}, "train: label 2 has no class"),
        ({"test": (0, -1, 1)}, "test: label -1 has no class"),
        ({"classes": ("a", "b", "c")}, "no image of class 'c'"),
        ({"classes": ("a", "a")}, "class 'a' twice"),
        ({"prefixes": ("same-", "same-")}, "in train and in test"),
    ],
)
def test_labels_and_keys_that_do_not_fit_are_refused(arguments: dict, says: str) -> None:
    assert _task().classes == ("a", "b")
    with pytest.raises(CurateError, match=says):
        _task(**arguments)
