"""Caltech Camera Traps-20: animals seen by cameras in the wild, where the camera was trained or elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

from curate.errors import RecipeError
from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import (
    LabeledFile,
    display_names,
    labeled_file,
    shared_classes,
)
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

ANNOTATIONS = "eccv_18_annotation_files"
IMAGES = "eccv_18_all_images_sm"
EMPTY = "empty"
CLASSES = 15  # without empty
TRAIN_IMAGES = 13_553
TEST_IMAGES = {"cis": 15_827, "trans": 23_275}  # as published, with those that are left out here
TEMPLATES = (
    "a camera trap photo of a {}.",
    "a {} seen by a camera trap at night.",
    "a photo of a {} in the wild.",
)


def open_camera_traps(request: TaskRequest) -> list[Task]:
    """Open it with the official train list, and cis_test or trans_test.

    A frame that is empty, that has no annotation or that shows several categories is left out and counted. The other
    places of trans_test have not all animals of the places of train: a class that is on one side alone is
    left out there, and counted. In cis_test, which has all 15, a class that is missing is an error.

    Raises:
        RecipeError: the argument is not trans.
    """
    side = request.argument or "cis"
    if request.argument not in (None, "cis", "trans"):
        raise RecipeError(
            f"task camera-traps:{request.argument}: no such test set",
            hint="camera-traps tests at the places of training, camera-traps:trans at others",
        )
    places = (f"cct20/{ANNOTATIONS}", f"caltech_camera_traps/{ANNOTATIONS}", f"{ANNOTATIONS}")
    download = Download(request.info, request.find(*places).parent)
    train, ids, train_count, notes = _rows(download, "train")
    test, test_ids, test_count, test_notes = _rows(download, f"{side}_test")
    if ids != test_ids:
        what = f"categories {test_ids} are not those of train_annotations.json, {ids}"
        download.damaged(download.root / ANNOTATIONS / f"{side}_test_annotations.json", what)
    sizes = (len({one.class_id for one in train + test}), train_count, test_count)
    absent = set(ids.values()) if side == "trans" else set()
    train, test, dropped = shared_classes(train, test, absent)
    there = {one.class_id for one in train + test}
    names = display_names(name for _, name in sorted(ids.items()) if name in there)
    return [
        download.task(
            names,
            train,
            test,
            templates=TEMPLATES,
            name="camera-traps-trans" if side == "trans" else None,
            notes=[*notes, *test_notes, *dropped],
            sizes=sizes,
            published=(CLASSES, TRAIN_IMAGES, TEST_IMAGES[side]),
        )
    ]


def _rows(download: Download, side: str) -> tuple[list[LabeledFile], dict[int, str], int, list[str]]:
    """Return the images of a list, its categories by number, how many images it has, and notes."""
    file = f"{ANNOTATIONS}/{side}_annotations.json"
    found = download.json(file)
    categories = _records(download, file, found, "categories", {"id": int, "name": str})
    names = {category["id"]: category["name"] for category in categories}
    images = _records(download, file, found, "images", {"id": str, "file_name": str})
    seen: dict[str, set[int]] = {image["id"]: set() for image in images}
    for number, one in enumerate(
        _records(download, file, found, "annotations", {"image_id": str, "category_id": int})
    ):
        where = f"{download.root / file}, annotations[{number}]"
        if one["image_id"] not in seen:
            download.damaged(where, f"of image {one['image_id']!r}, which is not among the images")
        if one["category_id"] not in names:
            download.damaged(where, f"category {one['category_id']} has no name")
        seen[one["image_id"]].add(one["category_id"])
    rows, left_out = [], Counter[str]()
    for image in images:
        of = [names[number] for number in sorted(seen[image["id"]])]
        if len(of) != 1 or of[0] == EMPTY:
            reason = "without annotation" if not of else "several categories" if len(of) > 1 else "empty"
            left_out[reason] += 1
        else:
            rows.append(labeled_file(image["file_name"], of[0], below=IMAGES))
    rows, again = download.once(side, rows)
    notes = [f"{side}: {count:,} images left out: {reason}" for reason, count in sorted(left_out.items())]
    return rows, {n: name for n, name in names.items() if name != EMPTY}, len(images), notes + again


def _records(
    download: Download, file: str, found: Any, part: str, fields: dict[str, type]
) -> list[dict[str, Any]]:
    """Return a list of a COCO file, its entries checked to have what is used of them."""
    items = found.get(part) if isinstance(found, dict) else None
    if not isinstance(items, list):
        download.damaged(download.root / file, f"has no list {part!r}")
    for number, item in enumerate(items):
        for name, kind in fields.items():
            if not isinstance(item, dict) or not isinstance(item.get(name), kind):
                where = f"{download.root / file}, {part}[{number}]"
                download.damaged(
                    where, f"has no {name!r} that is {'text' if kind is str else 'a whole number'}"
                )
    return items


TASKS = [
    TaskInfo(
        name="camera-traps",
        about="animals seen by camera traps at 20 places (CCT-20)",
        source="Beery et al., ECCV 2018, https://lila.science/datasets/caltech-camera-traps",
        splits="the official train; cis_test, at the same places (trans_test, at others); without empty frames and "
        "those of several categories, which are counted in the notes",
        get="unpack eccv_18_all_images_sm.tar.gz and eccv_18_annotations.tar.gz of "
        "https://lila.science/datasets/caltech-camera-traps into one folder; below --data: "
        f"cct20/{IMAGES}/*.jpg and cct20/{ANNOTATIONS}/train_annotations.json, …",
        open=open_camera_traps,
        argument="[:trans]",
        sizes=(CLASSES, TRAIN_IMAGES, TEST_IMAGES["cis"]),
    )
]
