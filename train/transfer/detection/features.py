"""A run meets a detection task."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from train.models.registry import Model
from train.runs import Run
from train.transfer.detection.task import DetectionSplit, DetectionTask


class DetectionSubject:
    """One run on one detection task, on one device.

    Args:
        progress: is told a line now and then while a detector learns or is tested.
    """

    image_size: int | None = None  # a protocol says how large images are

    def __init__(
        self,
        run: Run,
        task: DetectionTask,
        *,
        device: torch.device,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.run, self.task, self.device = run, task, device
        self.say = progress or (lambda line: None)

    def __str__(self) -> str:
        return f"run {self.run.name!r} on task {self.task.name!r}"

    @cached_property
    def train(self) -> DetectionSplit:
        """The training images, less those whose bytes are in test too; rows of a draw are positions here."""
        leaked = self.task.leaked
        return self.task.train.only(i for i in range(len(self.task.train)) if i not in leaked)

    @property
    def test(self) -> DetectionSplit:
        """All test images."""
        return self.task.test

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the training images that can be used."""
        return self.train.keys

    @property
    def targets(self) -> np.ndarray:
        """Which classes they hold: int8 targets_NC of 1, 0, and -1 where all objects of a class are difficult."""
        return self.train.targets

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the task."""
        leaked = self.task.leaked
        if not leaked:
            return self.task.notes
        first = self.task.train.keys[min(leaked)]
        said = f"train: {len(leaked)} images left out, identical to test images (such as {first})"
        return (*self.task.notes, said)

    @property
    def classes(self) -> int:
        """How many classes the task has."""
        return len(self.task.classes)

    @property
    def pretrained(self) -> bool:
        """Whether the run learned anything."""
        return self.run.info.method != "scratch"

    def backbone(self) -> Model:
        """Return the run's model without a head, a new one each time."""
        return self.run.backbone(self.device)
