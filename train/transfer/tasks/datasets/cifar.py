"""CIFAR-10 and CIFAR-100: 32 x 32 pixels, as the pickles of the Python version hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from curate.errors import DataError
from train.transfer.splits import Arrays, Split
from train.transfer.tasks.readers.labeled_files import display_names, size_notes
from train.transfer.tasks.readers.pickles import read_pickle
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

SIDE = 32  # pixels
TEMPLATES = (
    "a photo of a {}.",
    "a small photo of a {}.",
    "a blurry photo of a {}.",
    "a low resolution photo of a {}.",
)


class CifarFiles(NamedTuple):
    """Where the files of one of the two are, and what they call labels and names."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str


TEN = CifarFiles(
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    names="label_names",
)
HUNDRED = CifarFiles("cifar-100-python", ("train",), "test", "meta", "fine_labels", "fine_label_names")


def open_ten(request: TaskRequest) -> list[Task]:
    """Open CIFAR-10."""
    return [_open(request, TEN)]


def open_hundred(request: TaskRequest) -> list[Task]:
    """Open CIFAR-100, by its 100 classes; the 20 above them are not used."""
    return [_open(request, HUNDRED)]


def _open(request: TaskRequest, layout: CifarFiles) -> Task:
    request.no_argument()
    info = request.info
    meta = request.find(f"{layout.folder}/{layout.meta}")
    root, hint = meta.parent, f"task {info.name}: {info.get}"
    names = read_pickle(meta, hint=hint).get(layout.names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{meta}: no list of names {layout.names!r}", hint=hint)
    classes = tuple(display_names(names).values())
    train = _split("train", [root / name for name in layout.train], layout, classes, hint)
    test = _split("test", [root / layout.test], layout, classes, hint)
    notes = size_notes(info.sizes, (len(classes), len(train), len(test)))
    return Task(info.name, classes, train, test, notes=tuple(notes), templates=TEMPLATES)


def _split(side: str, files: Sequence[Path], layout: CifarFiles, classes: Sequence[str], hint: str) -> Split:
    pixels, labels = [], []
    for file in files:
        pixels_N3SS, labels_N = _batch(file, layout, hint)
        beyond = [label for label in labels_N if not 0 <= label < len(classes)]
        if beyond:
            raise DataError(
                f"{file}: label {beyond[0]} where {layout.meta} has {len(classes)} names", hint=hint
            )
        pixels.append(pixels_N3SS)
        labels += labels_N
    pixels_NSS3 = np.ascontiguousarray(np.concatenate(pixels).transpose(0, 2, 3, 1))  # uint8, 0..255
    keys = tuple(f"{side}/{number:05d}" for number in range(len(labels)))
    return Split(keys, tuple(labels), Arrays(pixels_NSS3))


def _batch(file: Path, layout: CifarFiles, hint: str) -> tuple[np.ndarray, list[int]]:
    """Return the pixels of a file, N3SS, and the labels."""
    found = read_pickle(file, hint=hint)
    pixels, labels = found.get("data"), found.get(layout.labels)
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{file}: no list of whole numbers {layout.labels!r}", hint=hint)
    shape = (len(labels), 3 * SIDE * SIDE)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != shape:
        have = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise DataError(f"{file}: 'data' is {have}, and should be uint8 {shape}", hint=hint)
    return pixels.reshape(-1, 3, SIDE, SIDE), labels


TASKS = [
    TaskInfo(
        name="cifar10",
        about="ten kinds of things and animals, 32 x 32 pixels",
        source="Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        splits="the official ones",
        get="unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz; below --data: "
        "cifar-10-batches-py/batches.meta, data_batch_1 to data_batch_5, test_batch",
        open=open_ten,
        sizes=(10, 50_000, 10_000),
    ),
    TaskInfo(
        name="cifar100",
        about="a hundred kinds of things and animals, 32 x 32 pixels",
        source="Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        splits="the official ones",
        get="unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz; below --data: "
        "cifar-100-python/meta, train, test",
        open=open_hundred,
        sizes=(100, 50_000, 10_000),
    ),
]
