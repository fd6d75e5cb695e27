"""A run meets a task: the model, the images on the device, and features that are computed once."""

# N images, B of a batch, S pixels of a side, D features, C classes

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curate.errors import DataError
from train.models import Model, normalize
from train.runs import Run
from train.transfer.images import Pixels, TaskPixels, pixels
from train.transfer.tasks import Task

BATCH = 256  # images of a forward pass without gradients


@dataclass(frozen=True)
class Outcome:
    """What a protocol gives back.

    Args:
        predictions: int64 labels of the whole test set.
        chosen: the hyperparameters it settled on.
        select: how: "validation", or "fixed" where the draw has no image to spare.
    """

    predictions: np.ndarray
    chosen: dict[str, Any]
    select: str


class Subject:
    """One run on one task, at one image size, on one device."""

    def __init__(self, run: Run, task: Task, *, image_size: int, device: torch.device) -> None:
        self.run, self.task, self.image_size, self.device = run, task, image_size, device

    def __str__(self) -> str:
        return f"run {self.run.name!r} on task {self.task.name!r}"

    @cached_property
    def pixels(self) -> TaskPixels:
        """The task's images, decoded."""
        return pixels(self.task, self.image_size)

    @property
    def classes(self) -> int:
        """How many classes the task has."""
        return len(self.task.classes)

    @cached_property
    def train_images(self) -> Tensor:
        """uint8 images_N3SS on the device."""
        return self.pixels.train.images.to(self.device)

    @cached_property
    def test_images(self) -> Tensor:
        """uint8 images_N3SS on the device."""
        return self.pixels.test.images.to(self.device)

    @cached_property
    def model(self) -> Model:
        """The run's model with a new head of zeros, in eval mode. Copy it before training it."""
        model = self.run.model(self.device, num_classes=self.classes)
        for parameter in model.head.parameters():
            torch.nn.init.zeros_(parameter)
        return model

    @cached_property
    def train_features(self) -> Tensor:
        """Frozen features_ND of the training split, float32, on the device."""
        return self._features(self.pixels.train, self.train_images)

    @cached_property
    def test_features(self) -> Tensor:
        """Frozen features_ND of the test split, float32, on the device."""
        return self._features(self.pixels.test, self.test_images)

    def _features(self, split: Pixels, images_N3SS: Tensor) -> Tensor:
        features_ND = forward(self.model.backbone, images_N3SS)
        finite_N = features_ND.isfinite().all(dim=1)
        if not finite_N.all():
            bad = (~finite_N).nonzero().flatten().tolist()
            raise DataError(
                f"{self}: features of {len(bad)} of {len(split)} images are not finite "
                f"(such as {split.keys[bad[0]]})",
                hint="the run diverged; look at its metrics",
            )
        return features_ND


@torch.no_grad()
def forward(module: torch.nn.Module, images_N3SS: Tensor) -> Tensor:
    """Return what a module in eval mode makes of uint8 images, float32."""
    return torch.cat([module(normalize(images_B3SS)).float() for images_B3SS in images_N3SS.split(BATCH)])
