"""One run on one detection task."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from train.models.registry import Model
from train.runs import Run
from train.transfer.detection.task import DetectionSplit, DetectionTask
from train.transfer.features import RunOnTask


class RunOnDetectionTask(RunOnTask):
    """One run on one detection task, on one device.

    Args:
        progress: gets a line now and then while a detector trains or is tested.
    """

    task: DetectionTask

    def __init__(
        self,
        run: Run,
        task: DetectionTask,
        *,
        device: torch.device,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(run, task, device)
        self.say = progress or (lambda line: None)

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
        """Keys of the training images that can be used."""
        return self.train.keys

    @property
    def targets(self) -> np.ndarray:
        """The classes in each image: int8 targets_NC of 1, 0, and -1 where all objects of a class are difficult."""
        return self.train.targets

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the task."""
        return (*self.task.notes, *self.task.leak_notes)

    @property
    def pretrained(self) -> bool:
        """Whether the run is pre-trained."""
        return self.run.info.method != "scratch"

    def backbone(self) -> Model:
        """Return the run's model without a head, a new one each time."""
        return self.run.backbone(self.device)
