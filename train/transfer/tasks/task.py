"""A downstream task: classes in label order, images to train on, images to test on.

Tasks are opened by name (`dtd`, `digits`, `folder:PATH`); `datasets/` has a file for each dataset. A Task can be made
from arrays as well; its content is checked when it is made.
"""

# N images of a split, C classes

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from curate.errors import DataError
from curate.rows.chance import chance
from curate.rows.manifest import digest
from train.transfer.splits import BaseSplit, Split

TaskKind = Literal["classification", "detection"]
Metric = Literal[
    "top1", "mean_per_class", "map", "map11", "voc_ap11", "voc_ap", "coco_ap", "coco_ap50", "coco_ap75"
]


# By whether an image may have several labels.
METRICS: dict[bool, tuple[Metric, ...]] = {False: ("top1", "mean_per_class"), True: ("map11", "map")}


@dataclass(frozen=True, eq=False)
class BaseTask:
    """A task, checked when it is made: what classification and detection share.

    Args:
        name: what results call it.
        classes: names in label order: label i is classes[i].
        train: training images are drawn from these.
        test: every measurement is over all of these.
        metric: the one that the task is usually reported in.
        flip: whether a mirror image still shows the same classes (not so for digits).
        notes: what was left out while opening it.
        partition: which of a task's official ways to split it; results average over them.

    Raises:
        DataError: too few classes, names that repeat, a key twice or in both splits.
    """

    name: str
    classes: tuple[str, ...]
    train: BaseSplit = field(repr=False)
    test: BaseSplit = field(repr=False)
    metric: Metric = "top1"
    flip: bool = True
    notes: tuple[str, ...] = ()
    partition: str | None = None

    kind: ClassVar[TaskKind]
    min_classes: ClassVar[int]

    def __post_init__(self) -> None:
        if len(self.classes) < self.min_classes:
            least = {1: "one", 2: "two"}[self.min_classes]
            raise DataError(
                f"{self.name}: {len(self.classes) or 'no'} classes", hint=f"a task needs at least {least}"
            )
        if len(set(self.classes)) < len(self.classes):
            twice = next(c for c in self.classes if self.classes.count(c) > 1)
            raise DataError(f"{self.name}: class {twice!r} twice", hint="give each class a name of its own")
        for side, split in (("train", self.train), ("test", self.test)):
            where = f"{self.name}, {side}"
            split.check_lengths(where)
            if len(set(split.keys)) < len(split.keys):
                raise DataError(f"{where}: keys repeat", hint="give each image a key of its own")
            self.check_targets(where, split)
        both = set(self.train.keys) & set(self.test.keys)
        if both:
            raise DataError(
                f"{self.name}: {len(both)} images are in train and in test (such as {min(both)!r})",
                hint="a test image must not be trained on",
            )

    def check_targets(self, where: str, split: Any) -> None:
        """Refuse targets that do not belong to the classes.

        Args:
            where: what errors begin with.
            split: train or test.
        """
        raise NotImplementedError

    @cached_property
    def leaked(self) -> frozenset[int]:
        """Positions in train of images whose bytes are in test too. No draw contains them."""
        test = set(self.test.hashes)
        return frozenset(i for i, value in enumerate(self.train.hashes) if value in test)

    @property
    def leak_notes(self) -> tuple[str, ...]:
        """A sentence about the leaked images, where there are any."""
        if not self.leaked:
            return ()
        first = self.train.keys[min(self.leaked)]
        return (f"train: {len(self.leaked)} images left out, identical to test images (such as {first})",)


@dataclass(frozen=True, eq=False)
class Task(BaseTask):
    """A classification task, checked when it is made.

    Args:
        metric: top1; mean_per_class; or, where an image may have several labels, map (area under the precision-recall
            curve) or map11 (eleven points).
        templates: prompts with {} for recognising the classes by name.

    Raises:
        DataError: as `BaseTask`; a label without a name, a class that is missing from a split.
    """

    train: Split = field(repr=False)
    test: Split = field(repr=False)
    templates: tuple[str, ...] = ("a photo of a {}.",)

    kind = "classification"
    min_classes = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in METRICS[self.multi_label]:
            several = "several labels" if self.multi_label else "one label"
            raise DataError(
                f"{self.name}: metric {self.metric!r} for images of {several}",
                hint=f"one of: {', '.join(METRICS[self.multi_label])}",
            )

    def check_targets(self, where: str, split: Split) -> None:
        """Refuse labels without a name, and classes without an image."""
        check_labels(where, split.targets, self.classes)

    def __getstate__(self) -> dict[str, Any]:
        """Leave decoded images behind: a worker elsewhere decodes its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_images"}

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.train.targets.ndim == 2

    @cached_property
    def digest(self) -> str:
        """Names the content: classes, keys, labels and the bytes of every image."""
        splits = [[s.keys, s.targets.tolist(), s.hashes] for s in (self.train, self.test)]
        accepted = (
            None if self.test.accepted is None else hashlib.sha256(self.test.accepted.tobytes()).hexdigest()
        )
        return digest(["task", self.classes, self.metric, self.flip, splits, accepted])


def check_labels(where: str, targets: np.ndarray, classes: Sequence[str]) -> None:
    """Refuse labels that the classes do not name, and classes that no label has.

    Args:
        targets: int64 targets_N, or int8 targets_NC.

    Raises:
        DataError: with the label or the class.
    """
    if targets.ndim == 2:
        if targets.shape[1] != len(classes):
            raise DataError(f"{where}: {targets.shape[1]} labels an image, {len(classes)} classes")
        if not np.isin(targets, (-1, 0, 1)).all():
            raise DataError(
                f"{where}: a label is neither 1, 0 nor -1", hint="has it, has it not, is not counted"
            )
        present = set(np.flatnonzero((targets == 1).any(axis=0)).tolist())
    else:
        present = set(np.unique(targets).tolist())
    strange = sorted(label for label in present if not 0 <= label < len(classes))
    if strange:
        raise DataError(
            f"{where}: label {strange[0]} has no class (there are {len(classes)}, from 0)",
            hint="labels are positions in the list of classes",
        )
    absent = [name for label, name in enumerate(classes) if label not in present]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(
            f"{where}: no image of class {absent[0]!r}{more}",
            hint="every class needs images in train and in test",
        )


def split_by_chance(keys: Sequence[str], labels: Sequence[int], *, fraction: float) -> list[bool]:
    """Say for each image whether it is for testing: `fraction` of every class, by chance of the key.

    A class keeps at least one image on each side; one of a single image has none for testing.
    """
    by_class: dict[int, list[int]] = {}
    for row in sorted(range(len(keys)), key=lambda i: (chance(keys[i], 0, "transfer/test"), keys[i])):
        by_class.setdefault(labels[row], []).append(row)
    is_test = [False] * len(keys)
    for rows in by_class.values():
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        for row in rows[:count]:
            is_test[row] = True
    return is_test
