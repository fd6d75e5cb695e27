"""Folders as people have them: splits, odd names, links, images that are none."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.datasets.verification import verify
from curate.errors import DataError, RecipeError
from curate.recipes.recipe import parse

Jpeg = Callable[..., bytes]
Take = Callable[..., Dataset]


@pytest.fixture
def put(tmp_path: Path, jpeg: Jpeg) -> Callable[..., Path]:
    """Write images below `pool`: `put("train/dog/1.jpg", "cat/2.png")`, each different; return the folder."""
    count = iter(range(1000))

    def write(*files: str, data: bytes | None = None) -> Path:
        for file in files:
            path = tmp_path / "pool" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(next(count)) if data is None else data)
        return tmp_path / "pool"

    (tmp_path / "pool").mkdir()
    return write


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Build everything in `pool`: `take(split="train")`."""

    def make(*, steps: tuple[Any, ...] = (), overlay: bool = True, **options: Any) -> Dataset:
        source = {"folder": str(tmp_path / "pool"), **options}
        recipe = parse({"name": "set", "source": source, "steps": list(steps)})
        return build(recipe, tmp_path / "set", overlay=overlay)[0].dataset

    return make


def told(dataset: Dataset) -> dict[str, tuple[str | None, str | None]]:
    """Return key → class name and split."""
    rows = dataset.table(["key", "label", "split"]).to_pylist()
    return {
        r["key"]: (None if r["label"] is None else dataset.classes[r["label"]].name, r["split"]) for r in rows
    }


def test_splits_share_their_classes(put: Callable[..., Path], take: Take) -> None:
    put("train/dog/1.jpg", "train/cat/1.jpg", "val/dog/1.jpg", "val/owl/2.jpg", "readme.txt")
    made = take()
    assert told(made) == {
        "train/cat/1": ("cat", "train"),
        "train/dog/1": ("dog", "train"),
        "val/dog/1": ("dog", "val"),
        "val/owl/2": ("owl", "val"),
    }
    assert [c.name for c in made.classes] == ["cat", "dog", "owl"]


@pytest.mark.parametrize(("folder", "split"), [("Train", "train"), ("validation", "val"), ("test", "test")])
def test_one_split_may_be_taken_by_either_name(
    put: Callable[..., Path], take: Take, folder: str, split: str
) -> None:
    other = "val" if split == "train" else "training"
    put(f"{folder}/dog/1.jpg", f"{folder}/cat/2.jpg", f"{other}/dog/3.jpg")
    expected = {f"{folder}/dog/1": ("dog", split), f"{folder}/cat/2": ("cat", split)}
    assert told(take(split=split)) == expected
    assert told(take(split=folder)) == expected


def test_what_stands_beside_the_splits_is_counted(put: Callable[..., Path], take: Take) -> None:
    put("train/dog/1.jpg", "words.txt", "2.jpg", "bus/3.jpg")  # perhaps `train` was meant as a class
    made = take(broken="error")
    assert told(made).keys() == {"train/dog/1"}
    assert made.info.source["left_out"] == {"beside the splits": 3}


def test_absent_split_is_refused_with_what_there_is(put: Callable[..., Path], take: Take) -> None:
    put("train/dog/1.jpg")
    with pytest.raises(RecipeError, match=r"no split 'val'(?s:.*)its folders are train"):
        take(split="val")


def test_wnids_get_their_names_and_plain_folders_keep_theirs(put: Callable[..., Path], take: Take) -> None:
    put("n02084071/1.jpg", "my dogs/2.jpg", "n99999999/3.jpg", "n02084071/deeper/and deeper/4.jpg")
    made = take()
    assert [(c.name, c.wnid) for c in made.classes] == [
        ("my dogs", None),
        ("dog", "n02084071"),
        ("n99999999", None),
    ]
    wnids = {r["key"]: r["wnid"] for r in made.table(["key", "wnid"]).to_pylist()}
    assert wnids == {
        "my_x20dogs/2": None,
        "n02084071/1": "n02084071",
        "n02084071/deeper/and_x20deeper/4": "n02084071",
        "n99999999/3": None,
    }


def test_images_in_no_class_folder_have_no_label(put: Callable[..., Path], take: Take) -> None:
    put("1.jpg", "dog/2.jpg")
    assert told(take()) == {"1": (None, None), "dog/2": ("dog", None)}
    alone = take(steps=({"where": "label IS NULL"},))
    assert (told(alone), alone.classes) == ({"1": (None, None)}, ())


def test_hidden_files_and_other_files_are_passed_over(put: Callable[..., Path], take: Take) -> None:
    put("dog/1.jpg", "dog/.hidden.jpg", ".git/2.jpg", "dog/._1.jpg", "dog/notes.txt", "dog/x.db", "dog/jpg")
    made = take()
    assert told(made).keys() == {"dog/1"}
    assert made.info.source["left_out"] == {"no image by its extension": 3}


def test_images_that_are_none_are_counted_by_reason(put: Callable[..., Path], take: Take, jpeg: Jpeg) -> None:
    put("dog/1.jpg")
    put("dog/empty.jpg", data=b"")
    put("dog/page.jpg", "dog/page2.png", data=b"<!DOCTYPE html>")
    put("dog/cut.jpg", data=jpeg(1)[:30])
    made = take()
    assert told(made).keys() == {"dog/1"}
    assert made.info.source["left_out"] == {"damaged header": 1, "empty": 1, "not an image": 2}
    assert any("left out: 2 not an image (such as dog/page.jpg)" in n for n in made.info.ledger[0].notes)
    with pytest.raises(DataError, match=r"2 not an image(?s:.*)`broken: skip`"):
        take(broken="error")


def test_links_are_followed_and_broken_ones_counted(put: Callable[..., Path], take: Take) -> None:
    pool = put("dog/1.jpg")
    (pool / "hound").symlink_to(pool / "dog")
    (pool / "dog" / "2.jpg").symlink_to(pool / "dog" / "1.jpg")
    (pool / "dog" / "gone.jpg").symlink_to(pool / "nowhere.jpg")
    made = take()
    assert told(made).keys() == {"dog/1", "dog/2", "hound/1", "hound/2"}
    assert made.info.source["left_out"] == {"broken link": 2}


@pytest.mark.parametrize("target", [".", "..", "../../pool", "up", "../dog/up"])
def test_loop_of_links_ends_and_gives_no_image_twice(
    put: Callable[..., Path], take: Take, target: str
) -> None:
    pool = put("dog/1.jpg", "cat/2.jpg")
    (pool / "dog" / "up").symlink_to(target)
    assert told(take()).keys() == {"dog/1", "cat/2"}


def test_link_that_leads_to_itself_is_counted(put: Callable[..., Path], take: Take) -> None:
    pool = put("dog/1.jpg")
    (pool / "dog" / "self.jpg").symlink_to("self.jpg")
    (pool / "self").symlink_to("self")
    made = take()
    assert told(made).keys() == {"dog/1"}
    assert made.info.source["left_out"]["broken link"] == 1


def test_what_is_no_file_is_not_opened(put: Callable[..., Path], take: Take) -> None:
    pool = put("dog/1.jpg", "dog/folder.jpg/2.jpg")
    os.mkfifo(pool / "dog" / "pipe.jpg")  # to open it would wait for ever
    made = take()
    assert told(made).keys() == {"dog/1", "dog/folder_x2Ejpg/2"}
    assert sum(made.info.source["left_out"].values()) == 1


@pytest.mark.parametrize(
    "name", [b"dog/caf\xe9.jpg", b"caf\xe9/1.jpg", b"dog/caf\xe9/1.jpg", b"dog/caf\xe9.txt"]
)
def test_names_that_are_not_utf8_are_counted(
    put: Callable[..., Path], take: Take, jpeg: Jpeg, name: bytes
) -> None:
    pool = put("dog/1.jpg")
    file = os.path.join(os.fsencode(pool), name)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    try:
        with open(file, "wb") as stream:
            stream.write(jpeg(7))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    made = take()
    assert told(made).keys() == {"dog/1"}
    assert [c.name for c in made.classes] == ["dog"]
    reason = "no image by its extension" if name.endswith(b"txt") else "name is not UTF-8"
    assert made.info.source["left_out"] == {reason: 1}
    assert "caf\\xe9" in made.info.ledger[0].notes[0]


def test_two_files_of_one_key_are_refused_with_both_names(put: Callable[..., Path], take: Take) -> None:
    put("dog/a.jpg", "dog/a.png", "dog/b.jpg")
    with pytest.raises(DataError, match=r"'dog/a' is dog/a.jpg and dog/a.png(?s:.*)rename or remove one"):
        take()


def test_odd_names_each_have_a_key_of_their_own(put: Callable[..., Path], take: Take) -> None:
    names = [
        "a.b",
        "a_x2Eb",
        "a b",
        "a%20b",
        "ü",
        "u\u0308",
        "漢字",
        "it's",
        'say "x"',
        "a\nb",
        "a\tb",
        "-",
        "x...",
    ]
    put(*(f"dog/{name}.jpg" for name in names))
    made = take()
    rows = made.table(["key", "file"]).to_pylist()
    assert len({row["key"] for row in rows}) == len(names)
    assert {row["file"] for row in rows} == {f"dog/{name}.jpg" for name in names}
    assert verify(made.path) == []


def picture(mode: str, kind: str) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def test_extension_is_that_of_the_bytes(put: Callable[..., Path], take: Take, tmp_path: Path) -> None:
    put("dog/1.jpg", data=picture("RGB", "PNG"))
    put("dog/2.JPEG", data=picture("RGB", "JPEG"))
    made = take(overlay=False)
    exts = {r["key"]: r["ext"] for r in made.table(["key", "ext"]).to_pylist()}
    assert exts == {"dog/1": "png", "dog/2": "jpg"}
    data = (made.path / "shards/000000.tar").read_bytes()
    assert b"dog/1.png\0" in data
    assert b"dog/2.jpg\0" in data
    assert verify(made.path) == []


def test_grey_and_four_colour_images_are_images(put: Callable[..., Path], take: Take) -> None:
    put("dog/grey.jpg", data=picture("L", "JPEG"))
    put("dog/print.jpg", data=picture("CMYK", "JPEG"))
    put("dog/palette.png", data=picture("P", "PNG"))
    put("dog/alpha.webp", data=picture("RGBA", "WEBP"))
    made = take(overlay=False)
    assert len(made) == 4
    assert verify(made.path) == []


@pytest.mark.parametrize("content", [(), ("dog/notes.txt",), ("train/dog/notes.txt",)])
def test_folder_without_images_is_refused(
    put: Callable[..., Path], take: Take, content: tuple[str, ...]
) -> None:
    put(*content)
    with pytest.raises(RecipeError, match="no images"):
        take()


def test_class_with_too_few_images_is_named(put: Callable[..., Path], take: Take, tmp_path: Path) -> None:
    put(*(f"dog/{i}.jpg" for i in range(4)), "n02121620/1.jpg")
    with pytest.raises(
        DataError, match=r"step 1 \(per_class\): 1 classes .*fewer than 2 .*\(n02121620 has 1\)"
    ):
        take(steps=({"per_class": 2},))
    assert not (tmp_path / "set").exists()


def test_class_folder_without_images_leaves_the_list(put: Callable[..., Path], take: Take) -> None:
    pool = put("dog/1.jpg", "1.jpg")
    (pool / "cat").mkdir()
    made = take()
    assert told(made) == {"dog/1": ("dog", None), "1": (None, None)}
    assert [c.name for c in made.classes] == ["dog"]


def test_sizes_are_those_of_the_images(put: Callable[..., Path], take: Take, jpeg: Jpeg) -> None:
    put("dog/1.jpg", data=jpeg(1, (71, 33)))
    [row] = take().table().to_pylist()
    assert (row["width"], row["height"], row["size"], row["offset"]) == (71, 33, len(jpeg(1, (71, 33))), 0)


def test_new_image_is_seen_by_the_next_build(put: Callable[..., Path], take: Take) -> None:
    put("dog/1.jpg")
    assert len(take()) == 1
    put("dog/2.jpg")
    assert len(take()) == 2
    (put() / "dog" / "1.jpg").unlink()
    assert told(take()).keys() == {"dog/2"}


def test_ledger_of_the_source_is_json(put: Callable[..., Path], take: Take) -> None:
    put("dog/1.jpg")
    assert json.loads((take().path / "dataset.json").read_text())["ledger"][0]["step"] == "source"


def test_a_class_called_train_among_others_is_a_class(put: Callable[..., Path], take: Take) -> None:
    put("tractor/1.jpg", "train/1.jpg", "trout/1.jpg")
    assert told(take()) == {f"{name}/1": (name, None) for name in ("tractor", "train", "trout")}


def test_a_split_without_class_folders_beside_one_with_them_is_a_split(
    put: Callable[..., Path], take: Take
) -> None:
    put("train/dog/1.jpg", "test/1.jpg", "other/1.jpg")
    assert told(take()) == {"train/dog/1": ("dog", "train"), "test/1": (None, "test")}
