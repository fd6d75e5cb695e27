"""Cassava leaf disease, of the Kaggle competition of 2020; most images are of one of the five classes."""

from __future__ import annotations

import re
from typing import Any

from train.transfer.tasks.readers.downloads import Download
from train.transfer.tasks.readers.labeled_files import divide_by_chance, labeled_file
from train.transfer.tasks.task import Task
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

TEST_FRACTION = 0.2  # of each class
NAMES = "label_num_to_disease_map.json"
TEMPLATES = (
    "a photo of a cassava leaf, {}.",
    "a photo of a cassava plant, {}.",
    "leaves of cassava in a field: {}.",
)


def open_cassava(request: TaskRequest) -> list[Task]:
    """Open it with a fifth of every class to test on, by chance of the image, for its test labels are not public."""
    request.no_argument()
    places = ("cassava/train.csv", "cassava-leaf-disease-classification/train.csv")
    download = Download(request.info, request.find(*places).parent)
    names = _names(download, download.json(NAMES))
    rows = []
    for where, (image, label) in download.table("train.csv", ("image_id", "label")):
        if label not in names:
            download.damaged(where, f"label {label!r} has no name in {NAMES}")
        rows.append(labeled_file(image, label, below="train_images"))
    rows, notes = download.once("train.csv", rows)
    train, test = divide_by_chance(rows, TEST_FRACTION)
    return [download.task(names, train, test, templates=TEMPLATES, notes=notes)]


def _names(download: Download, found: Any) -> dict[str, str]:
    """Return the names by label, in label order: "Cassava Green Mottle (CGM)" is green mottle."""
    where = download.root / NAMES
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        download.damaged(where, "is no map of labels to names")
    if sorted(found) != sorted(str(i) for i in range(len(found))):
        download.damaged(where, f"its labels are not 0 to {len(found) - 1}: {', '.join(found)}")
    plain = {label: re.sub(r"\s*\(.*\)$", "", name).lower() for label, name in found.items()}
    return {label: plain[label].removeprefix("cassava ") for label in sorted(plain, key=int)}


TASKS = [
    TaskInfo(
        name="cassava",
        about="four diseases of cassava leaves, and none; very uneven classes",
        source="Cassava Leaf Disease Classification, 2020, https://www.kaggle.com/c/cassava-leaf-disease-classification",
        splits="no public test labels: a fifth of every class of the training set is tested on, by chance of the image",
        get="unpack https://www.kaggle.com/c/cassava-leaf-disease-classification/data (needs an account); below "
        f"--data: cassava/train.csv, cassava/{NAMES}, cassava/train_images/*.jpg",
        open=open_cassava,
        sizes=(5, 17_118, 4_279),
    )
]
