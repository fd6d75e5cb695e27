"""Features of a run on a task: the model, the images, and what the frozen backbone makes of them, computed once."""

# N images, B of a batch, S pixels of a side, D features, C classes

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from curate.errors import DataError
from train.models.dual_encoder import DualEncoder
from train.models.layers import tapped
from train.models.registry import Model, ModelSpec
from train.models.tokenizer import Tokenizer
from train.runs import Run
from train.transfer.images import LabeledImages, SquareView, TaskImages, load_images
from train.transfer.metrics.average_precision import class_precisions
from train.transfer.metrics.classification import RULES, Score, scores
from train.transfer.shots import TrainSubset
from train.transfer.tasks.task import BaseTask, Task

BATCH = 256  # images of a forward pass without gradients


@dataclass(frozen=True)
class ProtocolResult:
    """The result of a protocol on a task.

    Args:
        scores: over the whole test set; the task's own metric is among them.
        chosen: the hyperparameters that the protocol selected.
        select: how it selected them: "validation"; "fixed" where the draw has no image to spare; "test", which
            flatters; or "none" where there is nothing to select.
        per_class: the score of each class, where a metric is a mean over classes.
        notes: what a reader of the number should know.
    """

    scores: list[Score]
    chosen: dict[str, Any]
    select: str
    per_class: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class RunOnTask:
    """One run on one task, on one device: what classification and detection share."""

    image_size: int | None = None  # in pixels; None where the protocol sets it

    def __init__(self, run: Run, task: BaseTask, device: torch.device) -> None:
        self.run, self.task, self.device = run, task, device

    def __str__(self) -> str:
        return f"run {self.run.name!r} on task {self.task.name!r}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the training images that can be used."""
        raise NotImplementedError

    @property
    def targets(self) -> np.ndarray:
        """Labels of the training images that can be used: int64 targets_N, or int8 targets_NC."""
        raise NotImplementedError

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the task."""
        raise NotImplementedError

    @property
    def classes(self) -> int:
        """The number of classes of the task."""
        return len(self.task.classes)


class FrozenFeatures(NamedTuple):
    """Features of the frozen backbone, float32, on the device."""

    train: Tensor  # ND
    test: Tensor


class RunFeatures(RunOnTask):
    """One run on one classification task, at one image size, on one device."""

    task: Task
    image_size: int

    def __init__(self, run: Run, task: Task, *, image_size: int, device: torch.device) -> None:
        super().__init__(run, task, device)
        self.image_size = image_size
        self._frozen: dict[str, FrozenFeatures] = {}

    @cached_property
    def images(self) -> TaskImages:
        """The task's images, short side to the image size, the middle of them."""
        return self.images_at(SquareView(self.image_size))

    def images_at(self, view: SquareView) -> TaskImages:
        """Return the task's images at another view.

        Raises:
            DataError: fewer images decode at this view than at the image size.
        """
        images = load_images(self.task, view)
        if view != SquareView(self.image_size) and images.train.keys != self.keys:
            raise DataError(f"{self}: images that do not decode", hint="take them out of the task")
        return images

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the training images that can be used."""
        return self.images.train.keys

    @property
    def targets(self) -> np.ndarray:
        """Labels of the training images that can be used."""
        return self.images.train.targets

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the task."""
        return self.images.notes

    @cached_property
    def model(self) -> Model:
        """The run's model with a new head of zeros, in eval mode. Copy it before training it."""
        model = self.run.model(self.device, num_classes=self.classes)
        for parameter in model.head.parameters():
            torch.nn.init.zeros_(parameter)
        return model

    @cached_property
    def dual_encoder(self) -> tuple[DualEncoder, Tokenizer]:
        """The image and the text encoder of a run of `clip`, in eval mode, and its tokenizer.

        Raises:
            RecipeError: the run is of another method.
        """
        from train.eval.zero_shot import dual_encoder_of

        return dual_encoder_of(self.run, self.device)

    def frozen(self, layer: str | None = None) -> FrozenFeatures:
        """Return the frozen backbone's features of all images; all protocols share them.

        Args:
            layer: a module of the backbone, such as layer3 or fc6, whose output is taken (maps are averaged over
                their places); None for the backbone's own.

        Raises:
            RecipeError: the backbone has no such layer.
            DataError: features are not finite, or there are none.
        """
        name = layer or ""
        if name not in self._frozen:
            backbone = tapped(self.model.backbone, layer) if layer else self.model.backbone
            sides = [self._forward(backbone, split) for split in (self.images.train, self.images.test)]
            self._frozen[name] = FrozenFeatures(*sides)
        return self._frozen[name]

    def of_subset(self, subset: TrainSubset, layer: str | None = None) -> tuple[Tensor, Tensor]:
        """Return the frozen features_KD of a subset of the training images, and its targets, on the device."""
        rows_K = torch.from_numpy(subset.rows).to(self.device)
        return self.frozen(layer).train[rows_K], torch.from_numpy(subset.targets).to(self.device)

    def _forward(self, backbone: nn.Module, split: LabeledImages) -> Tensor:
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

    def result(
        self, logits_NC: Tensor, chosen: dict[str, Any], select: str, *, notes: tuple[str, ...] = ()
    ) -> ProtocolResult:
        """Score logits_NC of the whole test set.

        Raises:
            DataError: they are not finite.
        """
        if not logits_NC.isfinite().all():
            raise DataError(
                f"{self}: diverged with {chosen}",
                hint="try smaller learning rates, or look at the run's metrics",
            )
        scores_NC, test = logits_NC.double().cpu().numpy(), self.images.test
        metrics = scores(scores_NC, test.targets, test.accepted)
        per_class = {}
        if test.targets.ndim == 2:
            rule = RULES[self.task.metric]
            precisions = class_precisions(scores_NC, test.targets, rule).tolist()
            per_class = dict(zip(self.task.classes, precisions, strict=True))
        return ProtocolResult(metrics, chosen, select, per_class, notes)


@torch.no_grad()
def forward(module: torch.nn.Module, batches: Iterable[Tensor], spec: ModelSpec) -> Tensor:
    """Return the float32 outputs of a module in eval mode for batches of uint8 images, normalised as a spec says."""
    return torch.cat([module(spec.normalize(images_B3SS)).float() for images_B3SS in batches])
