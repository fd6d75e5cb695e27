"""A run meets a task: the model, the images, and features that are computed once."""

# N images, B of a batch, S pixels of a side, D features, C classes

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from curate.errors import DataError
from train.models.dual_encoder import DualEncoder
from train.models.layers import tapped
from train.models.registry import Model, ModelSpec
from train.models.tokenizer import Tokenizer
from train.runs import Run
from train.transfer.images import Pixels, TaskPixels, View, pixels
from train.transfer.metrics.average_precision import class_precisions
from train.transfer.metrics.classification import RULES, Score, scores
from train.transfer.tasks.task import Task

BATCH = 256  # images of a forward pass without gradients


@dataclass(frozen=True)
class Outcome:
    """What a protocol gives back.

    Args:
        scores: over the whole test set; the task's own metric is among them.
        chosen: the hyperparameters it settled on.
        select: how: "validation"; "fixed" where the draw has no image to spare; "test", which flatters; or "none" where
            there is nothing to choose.
        per_class: what each class scored, where a metric is a mean over classes.
        notes: what a reader of the number should know.
    """

    scores: list[Score]
    chosen: dict[str, Any]
    select: str
    per_class: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class AnySubject(Protocol):
    """What measuring needs of a subject, of classification or of detection."""

    run: Run
    device: torch.device

    @property
    def image_size(self) -> int | None:
        """In pixels; None where the protocol says it."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the training images that can be used."""

    @property
    def targets(self) -> np.ndarray:
        """Their labels: int64 targets_N, or int8 targets_NC."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the task."""


class Features(NamedTuple):
    """Frozen features, float32, on the device."""

    train: Tensor  # ND
    test: Tensor


class Subject:
    """One run on one classification task, at one image size, on one device."""

    def __init__(self, run: Run, task: Task, *, image_size: int, device: torch.device) -> None:
        self.run, self.task, self.device = run, task, device
        self.image_size = image_size
        self._features: dict[str, Features] = {}

    def __str__(self) -> str:
        return f"run {self.run.name!r} on task {self.task.name!r}"

    @cached_property
    def pixels(self) -> TaskPixels:
        """The task's images, short side to the image size, the middle of them."""
        return self.seen(View(self.image_size))

    def seen(self, view: View) -> TaskPixels:
        """Return the task's images at a view of their own.

        Raises:
            DataError: it has other images than those of the image size.
        """
        found = pixels(self.task, view)
        if view != View(self.image_size) and found.train.keys != self.keys:
            raise DataError(f"{self}: images that do not decode", hint="take them out of the task")
        return found

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the training images that can be used."""
        return self.pixels.train.keys

    @property
    def targets(self) -> np.ndarray:
        """Labels of the training images that can be used."""
        return self.pixels.train.targets

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the task."""
        return self.pixels.notes

    @property
    def classes(self) -> int:
        """How many classes the task has."""
        return len(self.task.classes)

    @cached_property
    def model(self) -> Model:
        """The run's model with a new head of zeros, in eval mode. Copy it before training it."""
        model = self.run.model(self.device, num_classes=self.classes)
        for parameter in model.head.parameters():
            torch.nn.init.zeros_(parameter)
        return model

    @cached_property
    def towers(self) -> tuple[DualEncoder, Tokenizer]:
        """The image and the text tower of a run of `clip`, in eval mode, and its tokenizer.

        Raises:
            RecipeError: the run is of another method.
        """
        from train.eval.zero_shot import dual_encoder_of

        return dual_encoder_of(self.run, self.device)

    def features(self, layer: str | None = None) -> Features:
        """Return what the frozen backbone makes of all images; kept, so that every protocol shares it.

        Args:
            layer: a module of the backbone, such as layer3 or fc6, whose output is taken (maps are averaged over
                their places); None for the backbone's own.

        Raises:
            RecipeError: the backbone has no such layer.
            DataError: features are no numbers, or there are none.
        """
        name = layer or ""
        if name not in self._features:
            backbone = tapped(self.model.backbone, layer) if layer else self.model.backbone
            sides = [self._forward(backbone, side) for side in (self.pixels.train, self.pixels.test)]
            self._features[name] = Features(*sides)
        return self._features[name]

    def _forward(self, backbone: nn.Module, split: Pixels) -> Tensor:
        features_ND = forward(backbone, split.squares.batches(BATCH, self.device), self.run.spec)
        if features_ND.ndim != 2 or not features_ND.shape[1]:
            raise DataError(
                f"{self}: the backbone gives no features ({tuple(features_ND.shape[1:])} an image)"
            )
        finite_N = features_ND.isfinite().all(dim=1)
        if not finite_N.all():
            bad = (~finite_N).nonzero().flatten().tolist()
            raise DataError(
                f"{self}: features of {len(bad)} of {len(split)} images are not finite "
                f"(such as {split.keys[bad[0]]})",
                hint="the run diverged; look at its metrics",
            )
        return features_ND

    def outcome(
        self, logits_NC: Tensor, chosen: dict[str, Any], select: str, *, notes: tuple[str, ...] = ()
    ) -> Outcome:
        """Return what answers to the whole test set scored.

        Raises:
            DataError: they are no numbers.
        """
        if not logits_NC.isfinite().all():
            raise DataError(
                f"{self}: diverged with {chosen}",
                hint="try smaller learning rates, or look at the run's metrics",
            )
        answers_NC, test = logits_NC.double().cpu().numpy(), self.pixels.test
        found = scores(answers_NC, test.targets, test.accepted)
        per_class = {}
        if test.targets.ndim == 2:
            rule = RULES[self.task.metric]
            precisions = class_precisions(answers_NC, test.targets, rule).tolist()
            per_class = dict(zip(self.task.classes, precisions, strict=True))
        return Outcome(found, chosen, select, per_class, notes)


@torch.no_grad()
def forward(module: torch.nn.Module, batches: Iterable[Tensor], spec: ModelSpec) -> Tensor:
    """Return what a module in eval mode makes of batches of uint8 images, normalised as a spec says, float32."""
    return torch.cat([module(spec.normalize(images_B3SS)).float() for images_B3SS in batches])
