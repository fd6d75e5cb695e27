"""A detection task: images, and the boxes of the objects in them."""

# N images of a split, M objects of an image, C classes

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from curate.errors import DataError
from curate.rows.manifest import digest
from train.transfer.splits import BaseSplit, ImageSource
from train.transfer.tasks.derived_images import ImageSubset
from train.transfer.tasks.task import BaseTask, Metric


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The objects of an image; there may be none.

    Args:
        width: of the image, in pixels.
        height: likewise.
        boxes: float boxes_M4, xmin, ymin, xmax, ymax in pixels from the image's upper left corner: its first pixel is
            (0, 0, 1, 1), which VOC writes as (1, 1, 1, 1).
        labels: int64 labels_M, positions in the task's classes.
        difficult: bool difficult_M; neither to be found nor to be missed.
    """

    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class DetectionSplit(BaseSplit):
    """The images of one side of a detection task.

    Args:
        keys: unique names, which chance goes by.
        truths: what is in each.
        images: as many as keys.
        classes: how many the task has.
    """

    keys: tuple[str, ...]
    truths: tuple[GroundTruth, ...]
    images: ImageSource
    classes: int

    annotations = "truths"

    @cached_property
    def targets(self) -> np.ndarray:
        """Which classes an image holds, int8 targets_NC: 1; 0; or -1 where all of them are difficult."""
        targets_NC = np.zeros((len(self), self.classes), dtype=np.int8)
        for row_C, truth in zip(targets_NC, self.truths, strict=True):
            row_C[truth.labels[truth.difficult]] = -1
            row_C[truth.labels[~truth.difficult]] = 1
        return targets_NC

    def only(self, rows: Iterable[int]) -> DetectionSplit:
        """Return some of the images."""
        rows = list(rows)
        keys, truths = tuple(self.keys[i] for i in rows), tuple(self.truths[i] for i in rows)
        return DetectionSplit(keys, truths, ImageSubset(self.images, rows), self.classes)


@dataclass(frozen=True, eq=False)
class DetectionTask(BaseTask):
    """A detection task, checked when it is made.

    Args:
        metric: voc_ap11, voc_ap or coco_ap.

    Raises:
        DataError: as `BaseTask`; a label without a name, a box outside its image or without area, or a split without
            any box.
    """

    train: DetectionSplit = field(repr=False)
    test: DetectionSplit = field(repr=False)
    metric: Metric = "voc_ap11"

    kind = "detection"
    min_classes = 1

    def check_targets(self, where: str, split: DetectionSplit) -> None:
        """Refuse boxes and labels that cannot be, and a split without any box."""
        if split.classes != len(self.classes):
            raise DataError(f"{where}: made for {split.classes} classes, and there are {len(self.classes)}")
        for key, truth in zip(split.keys, split.truths, strict=True):
            check_truth(f"{where}, {key}", truth, len(self.classes))
        if not (split.targets == 1).any():
            raise DataError(
                f"{where}: no image has a box{', but difficult ones' if (split.targets < 0).any() else ''}",
                hint="images without boxes are welcome, but not alone",
            )

    @cached_property
    def digest(self) -> str:
        """Names the content: classes, keys, boxes and the bytes of every image."""
        splits = [
            [
                split.keys,
                [[t.boxes.tolist(), t.labels.tolist(), t.difficult.tolist()] for t in split.truths],
                split.hashes,
            ]
            for split in (self.train, self.test)
        ]
        return digest(["detection", self.classes, self.metric, self.flip, splits])


def check_truth(where: str, truth: GroundTruth, classes: int) -> None:
    """Refuse a box outside its image or without area, and a label that the classes do not name.

    Raises:
        DataError: with the box or the label.
    """
    boxes_M4, size_4 = truth.boxes, np.array([truth.width, truth.height] * 2)
    if boxes_M4.shape != (len(truth), 4) or truth.difficult.shape != (len(truth),):
        raise DataError(f"{where}: {len(truth)} labels, boxes of shape {boxes_M4.shape}")
    strange_M = ~((truth.labels >= 0) & (truth.labels < classes))
    if strange_M.any():
        raise DataError(
            f"{where}: label {truth.labels[strange_M][0]} has no class (there are {classes}, from 0)",
            hint="labels are positions in the list of classes",
        )
    flat_M = ~(boxes_M4[:, 2:] > boxes_M4[:, :2]).all(axis=1)
    if flat_M.any():
        raise DataError(f"{where}: box {boxes_M4[flat_M][0].tolist()} has no area")
    outside_M = ~((boxes_M4 >= 0) & (boxes_M4 <= size_4)).all(axis=1)
    if outside_M.any():
        box = boxes_M4[outside_M][0].tolist()
        raise DataError(f"{where}: box {box} is outside the image of {truth.width} x {truth.height} pixels")
