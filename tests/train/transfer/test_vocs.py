"""VOC from disk: what is read, and what is refused, by file, line and object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from voc_folders import Person, write_action, write_voc

from curate.errors import CurateError, DataError, MissingError, RecipeError
from train.transfer import open_tasks
from train.transfer.detection.task import DetectionSplit, DetectionTask, GroundTruth
from train.transfer.splits import Arrays
from train.transfer.tasks.derived_images import BoxCrops, enlarge_box
from train.transfer.tasks.readers.voc import ACTIONS, CLASSES, read_annotation, read_labels, read_names

DOG = ("dog", (10, 20, 40, 50))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images to train on and two to test on, below `data`."""
    write_voc(tmp_path, "trainval", {"000001": [DOG, ("cat", (1, 1, 80, 60), "difficult")], "000002": []})
    write_voc(tmp_path, "test", {"000003": [("cat", (5, 5, 9, 9))], "000004": [DOG]})
    return tmp_path


def annotation(data: Path, name: str = "000001") -> Path:
    return data / "VOCdevkit" / "VOC2007" / "Annotations" / f"{name}.xml"


def opened(data: Path) -> DetectionTask:
    (task,) = open_tasks("voc07-detection", [data])
    return task


def test_detection_opens_with_boxes_from_the_corner(data: Path) -> None:
    task = opened(data)
    assert (task.name, task.kind, task.metric) == ("voc07-detection", "detection", "voc_ap11")
    assert task.classes == CLASSES
    assert task.train.keys == ("000001", "000002")
    first, empty = task.train.truths
    assert (first.width, first.height) == (80, 60)
    assert first.boxes.tolist() == [
        [9, 19, 40, 50],
        [0, 0, 80, 60],
    ]  # the first pixel is 0, the last is included
    assert first.difficult.tolist() == [False, True]
    assert [CLASSES[label] for label in first.labels] == ["dog", "cat"]
    assert (len(empty), empty.boxes.shape) == (0, (0, 4))
    assert task.train.images.decode(0).size == (80, 60)


def test_presence_is_one_zero_or_not_counted(data: Path) -> None:
    targets = opened(data).train.targets
    assert targets.dtype == np.int8
    assert targets[0, CLASSES.index("dog")] == 1
    assert targets[0, CLASSES.index("cat")] == -1
    assert targets[1].tolist() == [0] * 20


def test_class_that_is_difficult_once_and_plain_once_is_there(tmp_path: Path) -> None:
    write_voc(tmp_path, "trainval", {"000001": [DOG, (*DOG, "difficult")]})
    write_voc(tmp_path, "test", {"000003": [DOG]})
    assert opened(tmp_path).train.targets[0, CLASSES.index("dog")] == 1


def test_numbers_of_images_and_classes_that_are_not_there_are_noted(data: Path) -> None:
    notes = opened(data).notes
    assert "train: 2 images; 5,011 were published" in notes
    assert any(note.startswith("train: no image has aeroplane") for note in notes)


def test_images_of_2012_are_added_to_those_of_2007(data: Path) -> None:
    write_voc(data, "trainval", {"2008_000001": [DOG]}, year="VOC2012")
    (task,) = open_tasks("voc07-detection:07+12", [data])
    assert task.train.keys == ("000001", "000002", "2008_000001")
    assert task.test.keys == ("000003", "000004")
    assert task.train.images.decode(2).size == (80, 60)
    assert len(set(task.train.hashes)) == 3
    assert task.digest != opened(data).digest
    assert task.name != opened(data).name


def test_archives_may_be_unpacked_side_by_side(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCtrainval_06-Nov-2007", "trainval", {"000001": [DOG]})
    write_voc(tmp_path / "VOCtest_06-Nov-2007", "test", {"000003": [DOG]})
    assert opened(tmp_path).test.keys == ("000003",)


def test_data_may_name_the_devkit_itself(data: Path) -> None:
    assert opened(data / "VOCdevkit").digest == opened(data).digest


def test_digest_follows_boxes_and_pixels(data: Path) -> None:
    before = opened(data).digest
    text = annotation(data).read_text()
    annotation(data).write_text(text.replace("<xmin>10<", "<xmin>11<"))
    moved = opened(data).digest
    assert moved != before
    Image.new("RGB", (80, 60), (1, 2, 3)).save(data / "VOCdevkit/VOC2007/JPEGImages/000001.jpg")
    assert opened(data).digest != moved


def test_training_image_that_is_a_test_image_is_found(data: Path) -> None:
    images = data / "VOCdevkit/VOC2007/JPEGImages"
    (images / "000002.jpg").write_bytes((images / "000003.jpg").read_bytes())
    assert opened(data).leaked == {1}


def test_box_of_a_pixel_beyond_the_border_is_cut(data: Path) -> None:
    path = annotation(data)
    path.write_text(path.read_text().replace("<xmax>80<", "<xmax>81<").replace("<ymin>1<", "<ymin>0<"))
    assert opened(data).train.truths[0].boxes[1].tolist() == [0, 0, 80, 60]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "<xmax>40<",
            "<xmax>82<",
            r"000001.xml, object 1: box 10, 20, 82, 50 is outside the image of 80 x 60",
        ),
        ("<xmin>10<", "<xmin>-1<", "object 1: box -1, 20, 40, 50 is outside"),
        ("<xmax>40<", "<xmax>9<", "object 1: box 10, 20, 9, 50 has no area"),
        ("<xmax>40<", "<xmax>nan<", "<bndbox/xmax> is 'nan'"),
        ("<xmax>40<", "<xmax>forty<", "<bndbox/xmax> is 'forty'"),
        ("<xmax>40</xmax>", "", "object 1: <bndbox/xmax> is missing"),
        ("<name>cat<", "<name>kat<", "object 2: no class 'kat'"),
        ("<width>80<", "<width>0<", "an image of 0 x 60"),
        ("<width>80</width>", "", "<size/width> is missing"),
        ("</annotation>", "", "000001.xml, line "),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "declares a document type"),
    ],
)
def test_annotation_that_is_not_sound_is_refused(data: Path, old: str, new: str, says: str) -> None:
    path = annotation(data)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=says) as caught:
        opened(data)
    assert caught.value.hint


def test_unknown_class_lists_those_that_there_are(data: Path) -> None:
    path = annotation(data)
    path.write_text(path.read_text().replace("<name>cat<", "<name>kat<"))
    with pytest.raises(DataError) as caught:
        opened(data)
    assert "did you mean 'cat'" in str(caught.value)
    assert all(name in str(caught.value) for name in CLASSES)


def test_entities_in_another_encoding_are_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(
        "<?xml version='1.0' encoding='utf-16'?><!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>".encode("utf-16")
    )
    with pytest.raises(DataError, match="declares a document type"):
        read_annotation(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"<html/>", b"<?xml version='1.0' encoding='klingon'?><a/>"]
)
def test_file_that_is_no_annotation_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.xml"):
        read_annotation(path)


def test_decimals_and_parts_of_persons_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><size><width>50</width><height>40</height></size><object><name>person</name><part><name>head</name>"
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part><bndbox><xmin>3.5</xmin>"
        "<ymin>4</ymin><xmax>9.25</xmax><ymax>8</ymax></bndbox></object></annotation>"
    )
    (thing,) = read_annotation(path).objects
    assert thing.box == (2.5, 3, 9.25, 8)
    assert not thing.difficult


def test_image_or_annotation_that_is_not_there_is_named(data: Path) -> None:
    (data / "VOCdevkit/VOC2007/JPEGImages/000002.jpg").unlink()
    with pytest.raises(DataError, match=r"trainval\.txt: there is no image .*000002\.jpg"):
        opened(data)
    annotation(data, "000003").unlink()
    with pytest.raises(DataError, match=r"000003\.xml: cannot be read"):
        open_tasks("voc07-classification", [write_test_only(data)])


def write_test_only(data: Path) -> Path:
    """Give the missing image back."""
    Image.new("RGB", (80, 60)).save(data / "VOCdevkit/VOC2007/JPEGImages/000002.jpg")
    return data


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("voc07-detection:12", RecipeError, "no such images to train on"),
        ("voc07-classification:07", RecipeError, "takes no argument"),
        ("voc07-detection:07+12", MissingError, "none of .*VOC2012"),
        ("voc12-action", MissingError, "none of .*VOC2012/ImageSets/Action/train.txt"),
    ],
)
def test_what_is_not_there_is_told(data: Path, name: str, error: type[CurateError], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        open_tasks(name, [data])
    assert caught.value.hint


def test_split_without_any_box_is_refused(tmp_path: Path) -> None:
    write_voc(tmp_path, "trainval", {"000001": [DOG]})
    write_voc(tmp_path, "test", {"000003": [], "000004": []})
    with pytest.raises(DataError, match="test: no image has a box"):
        opened(tmp_path)


def test_list_is_refused_where_it_is_empty_or_no_text(data: Path) -> None:
    path = data / "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt"
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_names(path.parents[2], "Main/trainval")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no plain text"):
        read_names(path.parents[2], "Main/trainval")


def _task(
    train: list[GroundTruth], test: list[GroundTruth], keys: tuple[str, str] = ("a", "b"), classes: int = 2
) -> DetectionTask:
    def side(truths: list[GroundTruth], key: str) -> DetectionSplit:
        pixels = np.zeros((len(truths), 8, 8, 3), dtype=np.uint8)
        return DetectionSplit(
            tuple(f"{key}{i}" for i in range(len(truths))), tuple(truths), Arrays(pixels), classes
        )

    return DetectionTask("made", ("x", "y"), side(train, keys[0]), side(test, keys[1]))


def _truth(box: tuple[float, ...] = (0, 0, 4, 4), label: int = 0, *, difficult: bool = False) -> GroundTruth:
    return GroundTruth(8, 8, np.array([box], dtype=float), np.array([label]), np.array([difficult]))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: _task([_truth(label=2)], [_truth()]), "label 2 has no class"),
        (lambda: _task([_truth((0, 0, 9, 4))], [_truth()]), "is outside the image"),
        (lambda: _task([_truth((4, 0, 4, 4))], [_truth()]), "has no area"),
        (lambda: _task([_truth((0, float("nan"), 4, 4))], [_truth()]), "has no area"),
        (lambda: _task([_truth()], [_truth()], keys=("a", "a")), "in train and in test"),
        (lambda: _task([_truth()], [_truth(difficult=True)]), "no image has a box, but difficult ones"),
        (lambda: _task([_truth()], [_truth()], classes=3), "made for 3 classes"),
    ],
)
def test_task_made_of_arrays_is_checked(make, says: str) -> None:
    with pytest.raises(DataError, match=says):
        make()


# Classification


def test_classification_reads_lists_and_annotations_alike(data: Path) -> None:
    (of_xml,) = open_tasks("voc07-classification", [complete(data)])
    main = data / "VOCdevkit/VOC2007/ImageSets/Main"
    for side, split in (("trainval", of_xml.train), ("test", of_xml.test)):
        for name, column in zip(CLASSES, split.targets.T, strict=True):
            said = {1: "1", 0: "-1", -1: "0"}
            lines = [f"{key} {said[int(label)]:>2}\n" for key, label in zip(split.keys, column, strict=True)]
            (main / f"{name}_{side}.txt").write_text("".join(lines))
    path = main / "dog_trainval.txt"
    path.write_text(path.read_text().replace("000001  1", "000001 -1"))
    (from_lists,) = open_tasks("voc07-classification", [data])
    assert from_lists.train.targets.dtype == np.int8
    changed = np.argwhere(from_lists.train.targets != of_xml.train.targets)
    assert changed.tolist() == [[0, CLASSES.index("dog")]]
    assert np.array_equal(from_lists.test.targets, of_xml.test.targets)
    assert of_xml.metric == "map11"
    assert of_xml.train.targets[0, CLASSES.index("cat")] == -1


def complete(data: Path) -> Path:
    """Write images that hold every class, on both sides: a task of classification needs them."""
    every = [(name, (1 + i, 1, 20 + i, 20)) for i, name in enumerate(CLASSES)]
    write_voc(data, "trainval", {"000001": [DOG, ("cat", (1, 1, 80, 60), "difficult")], "000002": every})
    write_voc(data, "test", {"000003": every, "000004": [DOG]})
    return data


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("000001 2", "line 2: '000001 2'"),
        ("000001", "line 2: '000001'"),
        ("000009 1", r"other images .*\(such as 0000"),
    ],
)
def test_line_of_a_list_that_is_not_sound_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "dog_test.txt"
    path.write_text(f"000002 -1\n{line}\n")
    with pytest.raises(DataError, match=says):
        read_labels(path, [("000001",), ("000002",)])


# Actions


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Images with one person for each action on each side, and one on each who does none."""
    for side, start in (("train", 0), ("val", 20)):
        doing = [*[(action,) for action in ACTIONS], ()]
        write_action(
            tmp_path,
            side,
            {f"2010_{start + i:06d}": [Person((21, 11, 40, 30), actions)] for i, actions in enumerate(doing)},
        )
    return tmp_path


def test_actions_open_as_persons_with_several_labels(people: Path) -> None:
    (task,) = open_tasks("voc12-action", [people])
    assert task.classes == ACTIONS
    assert task.multi_label
    assert task.train.keys[0] == "2010_000000_2"  # the second object: the first one of each image is a chair
    assert np.array_equal(task.train.targets[:10], np.eye(10))
    assert task.train.targets[10].tolist() == [0] * 10  # who does something else does none of the ten
    assert (len(task.train), len(task.test)) == (11, 11)


def test_lists_of_actions_are_taken_where_they_are(people: Path) -> None:
    folder = people / "VOCdevkit/VOC2012/ImageSets/Action"
    for side in ("train", "val"):
        persons = (folder / f"{side}.txt").read_text().split("\n")[:-1]
        for place, action in enumerate(ACTIONS):
            values = ["1" if i == place else "-1" for i in range(11)]
            if action == "running" and side == "train":
                values[0] = "0"  # not sure
            pairs = zip(persons, values, strict=True)
            (folder / f"{action}_{side}.txt").write_text("".join(f"{one}  {value}\n" for one, value in pairs))
    (task,) = open_tasks("voc12-action", [people])
    assert task.train.targets[0].tolist() == [1, 0, 0, 0, 0, 0, -1, 0, 0, 0]


def test_person_is_cut_out_with_surroundings(people: Path) -> None:
    (task,) = open_tasks("voc12-action", [people])
    # 20 x 20 pixels at (20, 10), half as much again: 30 x 30 at (15, 5).
    assert task.train.images.decode(0).size == (30, 30)


def test_two_persons_of_an_image_are_two_samples(people: Path, tmp_path: Path) -> None:
    (task,) = open_tasks("voc12-action", [people])
    one = task.train.images
    assert isinstance(one, BoxCrops)
    both = BoxCrops(one.images, (0, 0, 0), (one.boxes[0], (0.0, 0.0, 9.0, 9.0), one.boxes[0]))
    assert both.read(0) == both.read(2)
    assert both.read(0) != both.read(1)


@pytest.mark.parametrize(
    ("box", "context", "edges"),
    [
        ((20, 10, 40, 30), 1.5, (15, 5, 45, 35)),
        ((20, 10, 40, 30), 1.0, (20, 10, 40, 30)),
        ((0, 0, 20, 20), 1.5, (0, 0, 25, 25)),  # left off at the border, not moved
        ((30, 30, 50, 50), 1.5, (25, 25, 50, 50)),
        ((0, 0, 3, 3), 1.5, (0, 0, 4, 4)),  # 3.75, whole pixels
    ],
)
def test_box_grows_about_its_centre_within_the_image(box, context: float, edges: tuple[int, ...]) -> None:
    assert enlarge_box(box, context, (50, 50)) == edges


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("2010_000000 2", "2010_000000 3"), "no object 3"),
        (("2010_000000 2", "2010_000000 1"), "object 1: a chair"),
        (("2010_000000 2", "2010_000000 x"), "line 1"),
    ],
)
def test_list_of_persons_that_is_not_sound_is_refused(
    people: Path, change: tuple[str, str], says: str
) -> None:
    path = people / "VOCdevkit/VOC2012/ImageSets/Action/train.txt"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(DataError, match=says):
        open_tasks("voc12-action", [people])


def test_annotation_without_actions_is_refused(people: Path) -> None:
    path = people / "VOCdevkit/VOC2012/Annotations/2010_000003.xml"
    text = path.read_text()
    path.write_text(text[: text.index("<actions>")] + text[text.index("</actions>") + len("</actions>") :])
    with pytest.raises(DataError, match=r"2010_000003\.xml, object 2: says nothing of 'jumping'"):
        open_tasks("voc12-action", [people])
