"""The 1,797 handwritten digits that come with scikit-learn, 8 x 8 grey pixels; needs no download."""

from __future__ import annotations

import numpy as np

from train.transfer.splits import Arrays, Split
from train.transfer.tasks.task import Task, split_by_chance
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

TEST_FRACTION = 1 / 3  # of every class: 599 images, so an interval of 95 % is at most 8 points wide


def open_digits(request: TaskRequest) -> list[Task]:
    """Open the digits; who is for testing follows from chance and never changes."""
    request.no_argument()
    from sklearn.datasets import load_digits

    bundle = load_digits()
    grey_NHW = (bundle.images * (255 / 16)).round().astype(np.uint8)  # 0..16 -> 0..255
    pixels_NHW3 = np.repeat(grey_NHW[..., None], 3, axis=3)
    labels = [int(label) for label in bundle.target]
    keys = [f"digit-{i:04d}" for i in range(len(labels))]
    testing = split_by_chance(keys, labels, fraction=TEST_FRACTION)

    def split(wanted: bool) -> Split:
        rows = [i for i, is_test in enumerate(testing) if is_test == wanted]
        return Split(tuple(keys[i] for i in rows), tuple(labels[i] for i in rows), Arrays(pixels_NHW3[rows]))

    names = tuple(str(digit) for digit in range(10))
    return [
        Task(
            "digits",
            names,
            split(False),
            split(True),
            flip=False,
            templates=('a photo of the number: "{}".',),
        )
    ]


TASKS = [
    TaskInfo(
        name="digits",
        about="handwritten digits, 8 x 8 grey pixels",
        source="UCI's Optical Recognition of Handwritten Digits (test part), Alpaydin and Kaynak, 1998",
        splits="a third of every class is tested on, by chance of the image",
        get="comes with scikit-learn",
        open=open_digits,
        sizes=(10, 1198, 599),
    )
]
