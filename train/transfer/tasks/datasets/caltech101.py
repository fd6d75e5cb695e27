"""Caltech-101: 101 categories of objects and a folder of other images, 30 of each to train on."""

from __future__ import annotations

from collections.abc import Sequence

from curate.rows.chance import chance
from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import LabeledFile, display_names, labeled_file
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

PARTITIONS = 10
PER_CLASS = 30  # to train on
NAMES = {
    "BACKGROUND_Google": "background",
    "Faces": "face",
    "Faces_easy": "face up close",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "airplanes": "airplane",
    "car_side": "side of a car",
    "water_lilly": "water lily",
    "yin_yang": "yin and yang symbol",
}
TEMPLATES = ("a photo of a {}.", "a picture of one {}.", "a drawing of a {}.", "a cropped photo of the {}.")


def open_caltech101(request: TaskRequest) -> list[Task]:
    """Open it with 30 images of each class to train on, by chance of the image; a partition is another chance."""
    partitions = request.partition(PARTITIONS, "1")
    root = request.find(
        "caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories", "101_ObjectCategories"
    )
    download = Download(request.info, root)
    folders, notes = download.class_folders()
    return [_open(download, folders, notes, partition) for partition in partitions]


def _open(download: Download, folders: dict[str, list[str]], notes: list[str], partition: int) -> Task:
    train: list[LabeledFile] = []
    test: list[LabeledFile] = []
    short = 0
    for name, files in folders.items():
        if len(files) < 2:
            download.damaged(
                download.root / name, f"{len(files)} images, and training and testing need one each"
            )
        rows = [labeled_file(f"{name}/{file}", name) for file in files]
        drawn = _drawn(rows, partition)
        short += len(rows) <= PER_CLASS
        train += [one for one in rows if one in drawn]
        test += [one for one in rows if one not in drawn]
    if short:
        notes = [
            *notes,
            f"{short} classes have at most {PER_CLASS} images: one is tested on, the others trained on",
        ]
    names = display_names(folders, NAMES)
    return download.task(names, train, test, templates=TEMPLATES, notes=notes, partition=partition)


def _drawn(rows: Sequence[LabeledFile], seed: int) -> set[LabeledFile]:
    """Return who of a class is trained on; one at least is left to test on."""
    order = sorted(rows, key=lambda one: (chance(one.key, seed, "transfer/caltech101"), one.key))
    return set(order[: min(PER_CLASS, len(order) - 1)])


TASKS = [
    TaskInfo(
        name="caltech101",
        about="objects of 101 categories, and other images",
        source="Fei-Fei et al., CVPR Workshops 2004, https://data.caltech.edu/records/mzrjq-6wc02",
        splits="none official: 30 images of each class to train on, by chance of the image, and all others to test; "
        "partitions 1 to 10 are other chances, 1 without an argument",
        get="unpack caltech-101.zip of https://data.caltech.edu/records/mzrjq-6wc02 and "
        "101_ObjectCategories.tar.gz in it; below --data: "
        "caltech101/101_ObjectCategories/CLASS/*.jpg (BACKGROUND_Google is one of the classes)",
        open=open_caltech101,
        metric="mean_per_class",
        argument="[:PARTITION]",
        sizes=(102, 3_060, 6_084),
    )
]
