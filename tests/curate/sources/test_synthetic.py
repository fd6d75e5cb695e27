from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from curate.errors import DataError, RecipeError
from curate.sources.synthetic.classes import DOWNSTREAM, FAMILIES, POOL
from curate.sources.synthetic.folders import write_folder
from curate.sources.synthetic.images import draw, jpeg

ALL = POOL + DOWNSTREAM
REPOSITORY = Path(__file__).resolve().parents[3]


def write(out: Path, **changes) -> None:
    options = {"classes": POOL[:3], "images_per_class": {"train": 3, "val": 2}, "size": 16, "seed": 0}
    write_folder(out, **(options | changes))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# The classes


def test_pool_has_six_families_of_four_and_downstream_other_ones():
    sizes = Counter(cls.family for cls in POOL)
    assert len(POOL) == 24
    assert len(DOWNSTREAM) == 12
    assert sorted(sizes.values()) == [4] * 6
    assert not {cls.family for cls in POOL} & {cls.family for cls in DOWNSTREAM}
    assert {cls.family for cls in ALL} == set(FAMILIES)


def test_no_class_is_named_twice():
    assert len({cls.id for cls in ALL}) == len({cls.name for cls in ALL}) == len(ALL)


def test_siblings_share_a_painter_and_differ_in_pattern():
    looks = {(cls.shape, cls.pattern) for cls in ALL}
    assert len(looks) == len(ALL)
    assert len({cls.shape for cls in ALL}) == len({(cls.shape, cls.family) for cls in ALL}) == len(FAMILIES)


def test_every_class_is_one_of_imagenets(shared):
    with (shared / "data/metadata/imagenet1k_classes.csv").open() as file:
        known = {row["wnid"] for row in csv.DictReader(file)}
    assert len(known) == 1000
    assert {cls.id for cls in ALL} <= known


def test_a_family_is_above_its_classes_in_wordnet_and_above_no_others(shared):
    parents = defaultdict(set)
    with (shared / "data/metadata/imagenet1k_isa_edges.csv").open() as file:
        rows = csv.reader(file)
        next(rows)
        for parent, child in rows:
            parents[child].add(parent)

    def above(wnid: str) -> set[str]:
        return parents[wnid].union(*(above(parent) for parent in parents[wnid]))

    for cls in ALL:
        assert above(cls.id) & set(FAMILIES) == {cls.family}, cls.name
    for family in FAMILIES:
        assert above(family), family
        assert not above(family) & set(FAMILIES), family


# The images


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.name)
def test_an_image_is_a_function_of_class_index_and_seed(cls):
    image = draw(cls, 3, seed=1, size=24)
    assert image.shape == (24, 24, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    assert np.array_equal(image, draw(cls, 3, seed=1, size=24))
    others = [draw(cls, 4, seed=1, size=24), draw(cls, 3, seed=2, size=24)]
    assert all((image != other).mean() > 0.5 for other in others)


def test_drawing_neither_reads_nor_moves_the_global_generator():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = draw(POOL[0], 0, seed=0, size=16)
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    assert np.array_equal(first, draw(POOL[0], 0, seed=0, size=16))


def test_another_process_draws_the_same_bytes():
    code = (
        "import hashlib; from curate.sources.synthetic.classes import DOWNSTREAM, POOL; "
        "from curate.sources.synthetic.images import draw, jpeg; "
        "print(hashlib.sha256(b''.join(jpeg(draw(c, 7, seed=5, size=20)) for c in POOL + DOWNSTREAM)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    here = b"".join(jpeg(draw(cls, 7, seed=5, size=20)) for cls in ALL)
    assert digests == {hashlib.sha256(here).hexdigest() + "\n"}


@pytest.mark.parametrize("cls", POOL[::4], ids=lambda cls: cls.name)
def test_another_size_shows_the_same_scene(cls):
    small, large = draw(cls, 11, seed=0, size=32), draw(cls, 11, seed=0, size=96)
    reduced = np.asarray(Image.fromarray(large).reduce(3), dtype=float)
    other = np.asarray(draw(cls, 12, seed=0, size=32), dtype=float)
    assert np.abs(small - reduced).mean() < 0.5 * np.abs(other - reduced).mean()


def test_jpeg_keeps_the_picture(tmp_path):
    image = draw(POOL[0], 0, seed=0, size=48)
    (tmp_path / "a.jpg").write_bytes(jpeg(image))
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "JPEG"
        assert opened.size == (48, 48)
        assert np.abs(np.asarray(opened, dtype=float) - image).mean() < 15
    assert len(jpeg(image, quality=20)) < len(jpeg(image))


def test_families_are_learned_from_pixels_far_above_chance_and_siblings_are_not_easy():
    images_per_class, held_out = 80, 40  # a standard error of 1.5 points on 960 held-out images
    images = [draw(cls, i, seed=0, size=24) for cls in POOL for i in range(images_per_class + held_out)]
    pixels = np.stack([np.asarray(Image.fromarray(i).reduce(2), dtype=float).ravel() for i in images])
    labels = np.repeat(np.arange(len(POOL)), images_per_class + held_out)
    training = np.tile(np.arange(images_per_class + held_out) < images_per_class, len(POOL))
    names = sorted({cls.family for cls in POOL})
    family = np.array([names.index(cls.family) for cls in POOL])
    scaler = StandardScaler().fit(pixels[training])
    model = LogisticRegression(C=1e-3, max_iter=300).fit(scaler.transform(pixels[training]), labels[training])
    guessed, true = model.predict(scaler.transform(pixels[~training])), labels[~training]
    fine, coarse = (guessed == true).mean(), (family[guessed] == family[true]).mean()
    assert 2 / 24 < fine < 0.6
    assert coarse > 1.6 / 6


# The folder


def test_folder_holds_what_was_asked_for(tmp_path):
    write(tmp_path / "a/b")
    files = set(tree(tmp_path / "a/b"))
    expected = {f"train/{cls.id}/{cls.id}_{i:04d}.jpg" for cls in POOL[:3] for i in range(3)}
    expected |= {f"val/{cls.id}/{cls.id}_val_{i:04d}.jpg" for cls in POOL[:3] for i in range(2)}
    assert files == expected | {"synthetic.json"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert (tmp_path / "a/b/train" / POOL[0].id / f"{POOL[0].id}_0002.jpg").read_bytes() == jpeg(
        draw(POOL[0], 2, seed=0, size=16)
    )


def test_splits_share_no_image(tmp_path):
    write(tmp_path / "a", images_per_class={"train": 5, "val": 5, "test": 5})
    images = [data for name, data in tree(tmp_path / "a").items() if name.endswith(".jpg")]
    assert len(images) == 45
    assert len(set(images)) == 45


def test_smaller_folder_is_inside_the_larger(tmp_path):
    write(tmp_path / "small", images_per_class={"train": 2, "val": 1})
    write(tmp_path / "large", images_per_class={"val": 3, "train": 6})
    small, large = tree(tmp_path / "small"), tree(tmp_path / "large")
    del small["synthetic.json"]
    assert len(small) == 9
    assert small.items() < large.items()


def test_processes_write_the_same_bytes_and_report_every_image(tmp_path):
    steps: list[int] = []
    write(tmp_path / "one", workers=1)
    write(tmp_path / "two", workers=2, progress=steps.append)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert sum(steps) == 15
    assert all(step > 0 for step in steps)


def test_asking_again_does_nothing(tmp_path):
    write(tmp_path / "a")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    steps: list[int] = []
    write(tmp_path / "a", progress=steps.append)
    assert not steps
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"size": 20}, {"classes": POOL[1:4]}, {"images_per_class": {"train": 3, "val": 3}}],
    ids=lambda change: next(iter(change)),
)
def test_another_set_of_images_is_not_overwritten(tmp_path, change):
    write(tmp_path / "a")
    before = tree(tmp_path / "a")
    with pytest.raises(RecipeError, match=next(iter(change))) as caught:
        write(tmp_path / "a", **change)
    assert caught.value.hint
    assert before == tree(tmp_path / "a")


def test_a_folder_of_something_else_is_left_alone_and_an_empty_one_is_used(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert len(tree(tmp_path / "empty")) == 16
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(RecipeError, match="not empty") as caught:
        write(tmp_path / "mine")
    assert caught.value.hint
    assert tree(tmp_path / "mine") == {"notes.txt": b"keep"}


def test_a_broken_marker_is_told(tmp_path):
    write(tmp_path / "a")
    (tmp_path / "a/synthetic.json").write_text("{")
    with pytest.raises(DataError, match=r"synthetic\.json"):
        write(tmp_path / "a")


def test_nothing_is_left_of_a_folder_that_failed(tmp_path):
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", progress=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images_per_class": {"trian": 3}}, "trian"),
        ({"images_per_class": {"train": -1}}, "-1"),
        ({"images_per_class": {"train": 1_000_001}}, "1000001"),
        ({"classes": ()}, "no classes"),
        ({"classes": (POOL[0], POOL[0])}, "twice"),
        ({"classes": (replace(POOL[0], shape="fsh"),)}, "fsh"),
        ({"size": 0}, "size 0"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_impossible_sets_are_refused(tmp_path, change, message):
    with pytest.raises(RecipeError, match=message) as caught:
        write(tmp_path / "a", **change)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_marker_tells_how_the_folder_was_drawn(tmp_path):
    write(tmp_path / "a", seed=7)
    found = json.loads((tmp_path / "a/synthetic.json").read_text())
    assert (found["seed"], found["size"], found["images_per_class"]) == (7, 16, {"train": 3, "val": 2})
    assert [cls["id"] for cls in found["classes"]] == [cls.id for cls in POOL[:3]]
