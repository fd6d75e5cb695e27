"""What the protocols of detection share: settings, training on a draw, and scoring."""

# C classes

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from curate.errors import DataError, MissingError, require, require_one_of
from train.models.registry import Model
from train.transfer.detection.batches import DetectionLoader
from train.transfer.detection.coco import coco_scores
from train.transfer.detection.detectors import DetectorConfig, DetectorHead, build_detector
from train.transfer.detection.maps import Norm
from train.transfer.detection.matches import RULES, Detections, precisions, rank_detections, voc_scores
from train.transfer.detection.run_on_task import RunOnDetectionTask
from train.transfer.detection.training import SgdSchedule, fit
from train.transfer.features import ProtocolResult
from train.transfer.protocols._base import TransferProtocol
from train.transfer.shots import TrainSubset
from train.transfer.tasks.task import TaskKind


@dataclass(frozen=True, kw_only=True)
class DetectionSettings(TransferProtocol):
    """A protocol of detection: the settings that all share.

    Args:
        steps: batches to learn from; None for as many as were published, but at most `max_epochs`.
        max_epochs: over the draw, where `steps` is None, so that few shots do not take days; at least `min_steps`.
        min_steps: see `max_epochs`.
        batch_size: images of a step.
        lr: peak rate of SGD.
        drop_fractions: of the steps, after which the rate is a tenth of what it was.
        warmup_steps: linearly up to the rate; at most a tenth of all steps.
        momentum: of SGD.
        weight_decay: of weights; biases and norms have none.
        bias_lr_factor: times the rate for biases.
        max_gradient_norm: longer gradients are cut; None leaves them.
        norm: "frozen" keeps batch normalisation as the run left it, which batches so small need; "batch" lets it
            learn; "group" puts group normalisation in its place; "auto" is frozen, but batch without pre-training.
        frozen_stages: stages of the backbone that do not learn, the stem first.
        short_sides_px: an image's short side in training is one of these by chance, and the last in testing.
        long_side_px: no side is longer.
        rois_per_image: regions that are learned from.
        foreground_fraction: of them at most.
        foreground_iou: least overlap of a region with an object that it is learned as.
        background_iou: least overlap of a region that is learned as background.
        proposals_per_image: in training.
        test_proposals_per_image: in testing.
        nms_iou: of two detections of a class that overlap more, the surer is kept.
        min_confidence: less sure detections are dropped.
        max_detections: of an image.
        difficult: whether difficult objects are learned from; they are never tested on.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[TaskKind] = "detection"
    frozen: ClassVar[bool] = False
    chance_at_full: ClassVar[bool] = True  # the order of images, and how what is new begins
    published_steps: ClassVar[int] = 0  # of batches of `published_batch` images
    published_batch: ClassVar[int] = 1

    steps: int | None = None
    max_epochs: int = 100
    min_steps: int = 500
    batch_size: int = 2
    lr: float = 1e-3
    drop_fractions: tuple[float, ...] = (0.75,)
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_lr_factor: float = 1.0
    max_gradient_norm: float | None = None
    norm: Norm = "auto"
    frozen_stages: int = 0
    short_sides_px: tuple[int, ...] = (600,)
    long_side_px: int = 1000
    rois_per_image: int = 64
    foreground_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou: float = 0.0
    proposals_per_image: int = 2000
    test_proposals_per_image: int = 2000
    nms_iou: float = 0.3
    min_confidence: float = 0.05
    max_detections: int = 100
    difficult: bool = True

    def check(self) -> None:
        """Refuse settings that cannot be meant."""
        whole = ("max_epochs", "min_steps", "batch_size", "long_side_px", "rois_per_image", "max_detections")
        for name in (*whole, "proposals_per_image", "test_proposals_per_image", "lr"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        require(
            self.steps is None or self.steps > 0, "steps", self.steps, "1 or more; leave it out for the usual"
        )
        require_one_of(Norm, "norm", self.norm)
        sides = self.short_sides_px
        require(bool(sides) and min(sides) >= 32, "short_sides_px", sides, "32 or more pixels each")
        for name in ("foreground_fraction", "foreground_iou", "background_iou", "nms_iou", "min_confidence"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share, 0 to 1")
        require(self.frozen_stages >= 0, "frozen_stages", self.frozen_stages, "0 or more")

    def recipe(self, images: int) -> SgdSchedule:
        """Return how a detector learns from a draw of so many images."""
        steps = self.steps
        if steps is None:
            usual = self.published_steps * self.published_batch // self.batch_size
            steps = max(self.min_steps, min(usual, self.max_epochs * images // self.batch_size))
        drops = tuple(round(fraction * steps) for fraction in self.drop_fractions)
        return SgdSchedule(
            steps,
            self.batch_size,
            self._lr(),
            drops,
            min(self.warmup_steps, steps // 10),
            self.bias_lr_factor,
            self.momentum,
            self.weight_decay,
            self.max_gradient_norm,
        )

    def _lr(self) -> float:
        return self.lr

    def _shape(self, norm: Norm) -> DetectorConfig:
        raise NotImplementedError

    def shape(self, norm: Norm, head: DetectorHead, **own: Any) -> DetectorConfig:
        """Return what the detector looks like."""
        return DetectorConfig(
            head=head,
            norm=norm,
            frozen_stages=self.frozen_stages,
            short_sides_px=tuple(self.short_sides_px),
            long_side_px=self.long_side_px,
            rois_per_image=self.rois_per_image,
            foreground_fraction=self.foreground_fraction,
            foreground_iou=self.foreground_iou,
            background_iou=self.background_iou,
            proposals_per_image=(self.proposals_per_image, self.test_proposals_per_image),
            nms_iou=self.nms_iou,
            min_confidence=self.min_confidence,
            max_detections=self.max_detections,
            **own,
        )

    def detector(self, run_on_task: RunOnDetectionTask, model: Model, seed: int) -> tuple[Any, Norm]:
        """Return a detector before it has learned, and the normalisation that it has."""
        norm: Norm = self.norm
        if norm == "auto":
            norm = "frozen" if run_on_task.pretrained else "batch"
        return build_detector(model, run_on_task.classes, self._shape(norm), seed=seed), norm

    def learn(
        self,
        run_on_task: RunOnDetectionTask,
        subset: TrainSubset,
        proposals: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Train a detector on a draw; return it and the hyperparameters that followed from the draw.

        Raises:
            RecipeError: the run's model has no maps that this detector could work on.
            DataError: no object to learn from, an image that cannot be used, or a loss that is no number.
        """
        source = DetectionLoader(run_on_task.train, self.difficult, proposals)
        rows = subset.rows
        kept = [
            truth.labels if self.difficult else truth.labels[~truth.difficult]
            for truth in run_on_task.train.truths
        ]
        if not any(len(kept[row]) for row in rows):
            raise DataError(
                f"{run_on_task}: none of the {len(rows)} images drawn has an object", hint="draw more shots"
            )
        recipe = self.recipe(len(rows))
        detector, norm = self.detector(run_on_task, run_on_task.backbone(), subset.seed)
        fit(
            detector,
            source,
            rows,
            recipe,
            flip=run_on_task.task.flip,
            seed=subset.seed,
            device=run_on_task.device,
            say=run_on_task.say,
        )
        return detector, {"steps": recipe.steps, "lr": recipe.lr, "norm": norm}

    def outcome(
        self, run_on_task: RunOnDetectionTask, found: list[Detections], chosen: dict[str, Any]
    ) -> ProtocolResult:
        """Return what detections of all test images scored."""
        truths, notes = run_on_task.test.truths, []
        rankings = rank_detections(found, truths, run_on_task.classes)
        scored = voc_scores(rankings)
        try:
            scored += coco_scores(found, truths, run_on_task.classes)
        except MissingError as error:
            if run_on_task.task.metric.startswith("coco"):
                raise
            notes.append(f"no coco_ap: {error.message}; {error.hint}")
        rule = RULES.get(run_on_task.task.metric, "area")
        per_class = precisions(rankings, rule).tolist()
        named = {
            name: value
            for name, value in zip(run_on_task.task.classes, per_class, strict=True)
            if not math.isnan(value)
        }
        return ProtocolResult(scored, chosen, "none", named, tuple(notes))
