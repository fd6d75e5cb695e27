"""The ways to measure a run by detection: Fast R-CNN with proposals from a file, and Faster R-CNN with its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from curate.errors import RecipeError, require, require_one_of
from train.runs import Run
from train.transfer.detection.batches import DetectionLoader
from train.transfer.detection.detectors import DetectorConfig, DetectorHead
from train.transfer.detection.maps import Norm
from train.transfer.detection.proposals import file_digest, of_split, read_proposals, write_proposals
from train.transfer.detection.run_on_task import RunOnDetectionTask
from train.transfer.detection.settings import DetectionSettings
from train.transfer.detection.task import DetectionSplit, DetectionTask
from train.transfer.detection.training import predict, propose
from train.transfer.features import ProtocolResult
from train.transfer.shots import TrainSubset

LINEAR_BATCH = 16  # images of the step that `lr` of Faster R-CNN is for


@dataclass(frozen=True, kw_only=True)
class FastRcnn(DetectionSettings):
    """The protocol: Fast R-CNN, whose proposals come from a file and are the same for every run.

    AlexNet is used as Girshick did: regions are pooled from its fifth convolution to 6 x 6 places, and its own fc6 and
    fc7 look at them. Of other backbones the last stage does.

    Args:
        proposals: the file; see `train.transfer.detection.proposals`.

    Source: Girshick, ICCV 2015, https://arxiv.org/abs/1504.08083, and its code's settings.
    """

    name: ClassVar[str] = "fast-rcnn"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"voc07": {}}
    published_steps: ClassVar[int] = 40_000
    published_batch: ClassVar[int] = 2

    proposals: str = ""
    background_iou: float = 0.1
    bias_lr_factor: float = 2.0
    min_confidence: float = 0.01
    difficult: bool = False

    def _shape(self, norm: Norm) -> DetectorConfig:
        return self.shape(norm, "c4", own_proposals=False, anchor_sides_px=(), pyramid_width=0, head_width=0)

    def content(self) -> str:
        """Name what is in the file of proposals, which decides the numbers as the settings do."""
        return file_digest(self.proposals)

    def refuse(self, run: Run, task: DetectionTask) -> None:
        """Refuse to begin without a file of proposals."""
        if not self.proposals:
            raise RecipeError(
                "fast-rcnn needs proposals, boxes that may hold an object",
                hint="write: fast-rcnn(proposals=FILE); faster-rcnn(write_proposals=FILE) makes one",
            )
        read_proposals(self.proposals)

    def measure(self, run_on_task: RunOnDetectionTask, subset: TrainSubset) -> ProtocolResult:
        """Train on a draw and look for objects in the whole test set.

        Raises:
            DataError: an image has no proposals; or as `learn`.
        """
        known, where = read_proposals(self.proposals), self.proposals
        training = self._proposed(known, run_on_task.train, subset.rows, self.proposals_per_image, where)
        rows = np.arange(len(run_on_task.test))
        testing = self._proposed(known, run_on_task.test, rows, self.test_proposals_per_image, where)
        detector, chosen = self.learn(run_on_task, subset, training)
        found = predict(
            detector,
            DetectionLoader(run_on_task.test, proposals=testing),
            batch_size=self.batch_size,
            device=run_on_task.device,
            say=run_on_task.say,
        )
        return self.outcome(run_on_task, found, {**chosen, "proposals": self.content()})

    @staticmethod
    def _proposed(
        known: Mapping[str, np.ndarray], split: DetectionSplit, rows: np.ndarray, most: int, where: str
    ) -> dict[str, np.ndarray]:
        return of_split(known, split, np.unique(rows).tolist(), most=most, where=where)


@dataclass(frozen=True, kw_only=True)
class FasterRcnn(DetectionSettings):
    """The protocol: Faster R-CNN, which makes its own proposals.

    Args:
        head: "c4" cuts regions from one map and the backbone's last stage is the head, as MoCo's and VISSL's
            transfer does; "fpn" puts a pyramid on top, is quicker, and has a head without pre-training.
        lr: for 16 images a step; scaled linearly to `batch_size`.
        anchor_sides_px: one for each map of a pyramid; all of them on one map.
        pyramid_width: channels of the pyramid.
        head_width: features of the pyramid's head.
        write_proposals: a Parquet file for what the proposal network makes of all images, for `fast-rcnn`.

    Source: Ren et al., NIPS 2015; Lin et al., CVPR 2017; the schedule of MoCo, He et al., CVPR 2020.
    """

    name: ClassVar[str] = "faster-rcnn"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"fpn": {"head": "fpn"}, "c4": {"head": "c4"}}
    published_steps: ClassVar[int] = 24_000
    published_batch: ClassVar[int] = LINEAR_BATCH

    head: DetectorHead = "fpn"
    batch_size: int = LINEAR_BATCH
    lr: float = 0.02
    drop_fractions: tuple[float, ...] = (18 / 24, 22 / 24)
    warmup_steps: int = 100
    weight_decay: float = 1e-4
    short_sides_px: tuple[int, ...] = tuple(range(480, 801, 32))
    long_side_px: int = 1333
    rois_per_image: int = 512
    test_proposals_per_image: int = 1000
    nms_iou: float = 0.5
    anchor_sides_px: tuple[int, ...] = (32, 64, 128, 256, 512)
    pyramid_width: int = 256
    head_width: int = 1024
    write_proposals: str = ""

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        super().check()
        require_one_of(DetectorHead, "head", self.head)
        path = self.write_proposals
        require(
            not path or path.endswith(".parquet"), "write_proposals", path, "a path that ends in .parquet"
        )

    def _lr(self) -> float:
        return self.lr * self.batch_size / LINEAR_BATCH

    def _shape(self, norm: Norm) -> DetectorConfig:
        return self.shape(
            norm,
            self.head,
            own_proposals=True,
            anchor_sides_px=tuple(self.anchor_sides_px),
            pyramid_width=self.pyramid_width,
            head_width=self.head_width,
        )

    def measure(self, run_on_task: RunOnDetectionTask, subset: TrainSubset) -> ProtocolResult:
        """Train on a draw and look for objects in the whole test set.

        Raises:
            RecipeError, DataError: as `learn`.
        """
        detector, chosen = self.learn(run_on_task, subset)
        place = {"batch_size": self.batch_size, "device": run_on_task.device}
        found = predict(detector, DetectionLoader(run_on_task.test), say=run_on_task.say, **place)  # type: ignore[arg-type]
        if self.write_proposals:
            made: dict[str, np.ndarray] = {}
            for split in (run_on_task.train, run_on_task.test):
                made |= propose(detector, DetectionLoader(split), **place)  # type: ignore[arg-type]
            write_proposals(self.write_proposals, made)
        return self.outcome(run_on_task, found, chosen)


PROTOCOLS = (FastRcnn, FasterRcnn)
