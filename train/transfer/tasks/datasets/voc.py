"""PASCAL VOC: objects of 2007, to find and to name; and of 2012 what people do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curate.errors import DataError, RecipeError
from train.transfer.detection.task import DetectionSplit, DetectionTask, GroundTruth
from train.transfer.splits import Files, Split
from train.transfer.tasks.derived_images import BoxCrops, ConcatenatedImages
from train.transfer.tasks.readers.voc import (
    ACTIONS,
    CLASSES,
    OTHER,
    Annotation,
    Box,
    VocObject,
    image_file,
    list_file,
    read_annotations,
    read_labels,
    read_lines,
    read_names,
)
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

NAMES = {
    "aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle", "pottedplant": "potted plant",
    "tvmonitor": "television",
}  # fmt: skip  # as people write them, for templates
ARCHIVES = {  # the folder that an archive has around it where it was unpacked beside the other
    "2007 trainval": "VOCtrainval_06-Nov-2007",
    "2007 test": "VOCtest_06-Nov-2007",
    "2012 trainval": "VOCtrainval_11-May-2012",
}


def find_year(request: TaskRequest, archive: str, listed: str) -> Path:
    """Return the folder of a year that has a list of images.

    Args:
        archive: the key of ARCHIVES.
        listed: such as Main/trainval.
    """
    year = f"VOC{archive[:4]}/ImageSets/{listed}.txt"
    found = request.find(f"VOCdevkit/{year}", year, f"{ARCHIVES[archive]}/VOCdevkit/{year}")
    return found.absolute().parents[2]


def open_detection(request: TaskRequest) -> list[DetectionTask]:
    """Open VOC 2007's detection; `:07+12` adds the images of 2012 to those that are trained on.

    Raises:
        RecipeError: another argument.
        MissingError: an archive is not there.
        DataError: the data is not VOC's.
    """
    if request.argument not in (None, "07", "07+12"):
        raise RecipeError(
            f"task voc07-detection:{request.argument}: no such images to train on",
            hint="write: voc07-detection, or voc07-detection:07+12",
        )
    both = request.argument == "07+12"
    sides = [_detection(find_year(request, "2007 trainval", "Main/trainval"), "Main/trainval")]
    if both:
        sides.append(_detection(find_year(request, "2012 trainval", "Main/trainval"), "Main/trainval"))
    train = _joined(sides)
    test = _detection(find_year(request, "2007 test", "Main/test"), "Main/test")
    sizes = (16_551 if both else 5011, 4952)
    name = "voc0712-detection" if both else "voc07-detection"
    notes = (*_cut(train.keys, test.keys, sizes), *_absent(train, test))
    return [DetectionTask(name, CLASSES, train, test, notes=notes)]


def _detection(root: Path, listed: str) -> DetectionSplit:
    names = read_names(root, listed)
    truths = tuple(map(_truth, read_annotations(root, names)))
    return DetectionSplit(names, truths, _files(root, names), len(CLASSES))


def _truth(annotation: Annotation) -> GroundTruth:
    boxes = np.array([each.box for each in annotation.objects], dtype=np.float64).reshape(-1, 4)
    labels = np.array([CLASSES.index(each.name) for each in annotation.objects], dtype=np.int64)
    difficult = np.array([each.difficult for each in annotation.objects], dtype=bool)
    return GroundTruth(annotation.width, annotation.height, boxes, labels, difficult)


def _files(root: Path, names: Sequence[str]) -> Files:
    return Files(str(root), [(image_file(name), None, None) for name in names])


def _joined(sides: Sequence[DetectionSplit]) -> DetectionSplit:
    """Return the images of several years as one split."""
    if len(sides) == 1:
        return sides[0]
    keys = tuple(key for side in sides for key in side.keys)
    truths = tuple(truth for side in sides for truth in side.truths)
    return DetectionSplit(
        keys, truths, ConcatenatedImages(tuple(side.images for side in sides)), len(CLASSES)
    )


def _cut(train: Sequence[str], test: Sequence[str], published: tuple[int, int]) -> list[str]:
    """Say where there are other numbers of images than were published."""
    pairs = zip(("train", "test"), (train, test), published, strict=True)
    return [
        f"{side}: {len(keys):,} images; {count:,} were published"
        for side, keys, count in pairs
        if len(keys) != count
    ]


def _absent(train: DetectionSplit, test: DetectionSplit) -> list[str]:
    """Say which classes no image has."""
    notes = []
    for side, split in (("train", train), ("test", test)):
        absent = [
            name for name, column in zip(CLASSES, split.targets.T, strict=True) if not (column == 1).any()
        ]
        if absent:
            notes.append(f"{side}: no image has {', '.join(absent)}")
    return notes


def open_classification(request: TaskRequest) -> list[Task]:
    """Open VOC 2007's classification; an image whose objects of a class are all difficult does not count for it."""
    request.no_argument()
    train = _classification(find_year(request, "2007 trainval", "Main/trainval"), "trainval")
    test = _classification(find_year(request, "2007 test", "Main/test"), "test")
    names = tuple(NAMES.get(name, name) for name in CLASSES)
    notes = tuple(_cut(train.keys, test.keys, (5011, 4952)))
    return [Task("voc07-classification", names, train, test, metric="map11", notes=notes)]


def _classification(root: Path, side: str) -> Split:
    names = read_names(root, f"Main/{side}")
    lists = [list_file(root, f"Main/{name}_{side}") for name in CLASSES]
    if all(path.is_file() for path in lists):
        targets_NC = _listed_targets(lists, [(name,) for name in names])
    else:
        truths = tuple(map(_truth, read_annotations(root, names)))
        targets_NC = DetectionSplit(names, truths, _files(root, names), len(CLASSES)).targets
    return Split(names, np.ascontiguousarray(targets_NC), _files(root, names))


def _listed_targets(lists: Sequence[Path], wanted: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Return int8 targets_NC of 1, 0 and -1 (not counted); in the lists -1 is "has not", and 0 "not counted"."""
    columns = [[{1: 1, -1: 0, 0: -1}[label] for label in read_labels(path, wanted)] for path in lists]
    return np.array(columns, dtype=np.int8).T


def open_action(request: TaskRequest) -> list[Task]:
    """Open VOC 2012's actions: each person is an image, with what is around."""
    request.no_argument()
    root = find_year(request, "2012 trainval", "Action/train")
    train, test = (_action(root, side) for side in ("train", "val"))
    notes = tuple(_cut(train.keys, test.keys, (3134, 3144)))
    return [
        Task("voc12-action", ACTIONS, train, test, metric="map", notes=notes, templates=("a person {}.",))
    ]


def _action(root: Path, side: str) -> Split:
    names = read_names(root, f"Action/{side}")
    persons = _persons(list_file(root, f"Action/{side}"))
    annotations = dict(zip(names, read_annotations(root, names), strict=True))
    objects = [_person(root, annotations[name], name, number) for name, number in persons]
    lists = [list_file(root, f"Action/{action}_{side}") for action in ACTIONS]
    if all(path.is_file() for path in lists):
        targets_NC = _listed_targets(lists, persons)
    else:
        targets_NC = np.array(
            [_actions(root, *one) for one in zip(persons, objects, strict=True)], dtype=np.int8
        )
    place = {name: i for i, name in enumerate(names)}
    boxes: list[Box] = [person.box for person in objects]
    crops = BoxCrops(_files(root, names), [place[name] for name, _ in persons], boxes)
    return Split(tuple("_".join(one) for one in persons), np.ascontiguousarray(targets_NC), crops)


def _persons(path: Path) -> list[tuple[str, str]]:
    """Return image and number of each person of a list."""
    found = []
    for number, words in read_lines(path):
        if len(words) != 2 or not words[1].isdecimal():
            raise DataError(
                f"{path}, line {number}: {' '.join(words)!r}",
                hint="a line is an image and the number of its object",
            )
        found.append((words[0], words[1]))
    return found


def _person(root: Path, annotation: Annotation, name: str, number: str) -> VocObject:
    where = root / "Annotations" / f"{name}.xml"
    if not 1 <= int(number) <= len(annotation.objects):
        raise DataError(
            f"{where}: no object {number}, which a list of actions names (there are {len(annotation.objects)})",
            hint="actions are in the archive of 2012 alone",
        )
    thing = annotation.objects[int(number) - 1]
    if thing.name != "person":
        raise DataError(
            f"{where}, object {number}: a {thing.name}, where a list of actions has a person",
            hint="actions are in the archive of 2012 alone",
        )
    return thing


def _actions(root: Path, person: tuple[str, str], thing: VocObject) -> list[int]:
    """Return 1 or 0 of each action from the XML file; a person who does something else has none."""
    missing = [action for action in ACTIONS if action not in thing.actions]
    if missing:
        raise DataError(
            f"{root / 'Annotations' / person[0]}.xml, object {person[1]}: says nothing of {missing[0]!r}",
            hint=f"<actions> has each of {', '.join((*ACTIONS, OTHER))}",
        )
    return [int(thing.actions[action] > 0) for action in ACTIONS]


GET_2007 = (
    "unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar in one place: DIR/VOCdevkit/VOC2007 holds "
    "Annotations, ImageSets and JPEGImages"
)
GET_2012 = (
    "unpack VOCtrainval_11-May-2012.tar: DIR/VOCdevkit/VOC2012 holds Annotations, ImageSets and JPEGImages"
)

TASKS = [
    TaskInfo(
        name="voc07-detection",
        about="objects of 20 classes, to find in photographs",
        source="Everingham et al., IJCV 2010; http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        splits="trains on trainval of 2007, and with :07+12 on that of 2012 as well; tests on test of 2007",
        get=f"{GET_2007}; for :07+12 {GET_2012}",
        open=open_detection,
        metric="voc_ap11",
        kind="detection",
        argument="[:07+12]",
        sizes=(20, 5011, 4952),
    ),
    TaskInfo(
        name="voc07-classification",
        about="which of 20 classes a photograph shows; several may be",
        source="Everingham et al., IJCV 2010; http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        splits="trains on trainval, tests on test; a class whose objects are all difficult is not counted for an image",
        get=GET_2007,
        open=open_classification,
        metric="map11",
        sizes=(20, 5011, 4952),
    ),
    TaskInfo(
        name="voc12-action",
        about="what a person does, of 10 actions, some of them at once or none; each person's box, 1.5 times as large",
        source="Everingham et al., IJCV 2015; http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        splits="trains on train, tests on val, because the labels of test are not public",
        get=GET_2012,
        open=open_action,
        metric="map",
    ),
]
