"""Detectors out of a run's backbone: Fast R-CNN, and Faster R-CNN with a pyramid or on one map."""

# D features, K classes with the background

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork

from curate.errors import RecipeError
from train.models.registry import Model
from train.transfer.detection.maps import (
    FeatureMaps,
    Norm,
    TimmFeatureMaps,
    cut_backbone,
    freeze_statistics,
    set_norms,
    timm_maps,
)
from train.transfer.detection.parts import (
    AnchorHead,
    BoxPredictor,
    DetectorBackbone,
    GivenProposals,
    OneMapPool,
    RegionHeads,
    ResizeWithProposals,
    pyramid_pool,
)

DetectorHead = Literal["fpn", "c4"]
RATIOS = (0.5, 1.0, 2.0)  # height to width of anchors


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector looks like.

    Args:
        head: "fpn" cuts regions from a pyramid and has a head of its own; "c4" cuts them from one map, and the
            backbone's last stage (of AlexNet fc6 and fc7) is the head.
        own_proposals: whether it has a region proposal network; else proposals come with the images.
        norm: see `FasterRcnn`; not "auto".
        frozen_stages: of the backbone, the stem first.
        short_sides_px: one of these is drawn for each image in training; the last is for testing.
        long_side_px: no side is longer.
        anchor_sides_px: one a map of a pyramid; all of them on one map.
        pyramid_width: channels.
        head_width: features of the head of a pyramid.
        rois_per_image: regions of an image that are learned from.
        foreground_fraction: at most, of them.
        foreground_iou: the least overlap with an object of a region that is learned as such.
        background_iou: the least overlap of background.
        proposals_per_image: that the network for them keeps, in training and in testing.
        nms_iou: of two detections of a class that overlap more, the surer is kept.
        min_confidence: less sure detections are dropped.
        max_detections: of an image.
    """

    head: DetectorHead
    own_proposals: bool
    norm: Norm
    frozen_stages: int
    short_sides_px: tuple[int, ...]
    long_side_px: int
    anchor_sides_px: tuple[int, ...]
    pyramid_width: int
    head_width: int
    rois_per_image: int
    foreground_fraction: float
    foreground_iou: float
    background_iou: float
    proposals_per_image: tuple[int, int]
    nms_iou: float
    min_confidence: float
    max_detections: int


def build_detector(model: Model, classes: int, shape: DetectorConfig, *, seed: int) -> GeneralizedRCNN:
    """Return a detector whose first layers are a model's own, taken from it, on the device where it is.

    What is new begins by `seed`.

    Raises:
        RecipeError: the model has no maps that the head could work on.
    """
    device = next(model.parameters()).device
    model = model.cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        set_norms(model.backbone, shape.norm)
        trunk, pool, head, width = _pyramid(model, shape) if shape.head == "fpn" else _one_map(model, shape)
        proposer = _proposer(trunk, shape) if shape.own_proposals else GivenProposals()
        regions = RegionHeads(
            pool,
            head,
            BoxPredictor(width, classes + 1),
            shape.foreground_iou,
            shape.foreground_iou,
            shape.rois_per_image,
            shape.foreground_fraction,
            None,
            shape.min_confidence,
            shape.nms_iou,
            shape.max_detections,
            background_iou=shape.background_iou,
        )
    resize = ResizeWithProposals(
        shape.short_sides_px, shape.long_side_px, list(model.spec.mean), list(model.spec.std)
    )
    detector = GeneralizedRCNN(trunk, proposer, regions, resize)
    return detector.to(device, memory_format=torch.channels_last)


def _pyramid(model: Model, shape: DetectorConfig) -> tuple[DetectorBackbone, nn.Module, nn.Module, int]:
    maps: FeatureMaps | TimmFeatureMaps | None = timm_maps(model, shape.norm)
    if maps is not None and shape.frozen_stages:
        raise RecipeError(f"{model.spec.name}: frozen_stages is not for models of timm", hint="leave it at 0")
    if maps is None:
        pieces = cut_backbone(model)
        maps = FeatureMaps(pieces, len(pieces.stages), shape.norm, shape.frozen_stages)
    used = [stride for stride in maps.channels if stride in (4, 8, 16, 32)]
    if len(used) < 2 or "alexnet" in model.spec.name:
        raise RecipeError(
            f"{model.spec.name} has no pyramid of maps", hint="take the head c4: faster-rcnn(head=c4)"
        )
    trunk = DetectorBackbone(maps, shape.pyramid_width)
    if len(shape.anchor_sides_px) != len(trunk.strides):
        raise RecipeError(
            f"anchor_sides_px: {len(shape.anchor_sides_px)} of them, and the pyramid has {len(trunk.strides)} maps",
            hint=f"one for each stride: {', '.join(str(stride) for stride in trunk.strides)}",
        )
    pool = pyramid_pool(trunk.strides[:-1])
    head = TwoMLPHead(trunk.out_channels * 49, shape.head_width)
    for layer in (head.fc6, head.fc7):  # as in Detectron2; PyTorch's own are smaller
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(layer.bias)
    return trunk, pool, head, shape.head_width


def _one_map(model: Model, shape: DetectorConfig) -> tuple[DetectorBackbone, nn.Module, nn.Module, int]:
    if timm_maps(model, shape.norm) is not None:
        raise RecipeError(
            f"{model.spec.name}: the last stage of a model of timm cannot be taken as a head",
            hint="take the other head: faster-rcnn(head=fpn)",
        )
    pieces = cut_backbone(model)
    assert pieces.tail is not None
    trunk = DetectorBackbone(FeatureMaps(pieces, pieces.tail_stages, shape.norm, shape.frozen_stages), None)
    kind = "max" if "alexnet" in model.spec.name else "align"
    tail = StageHead(pieces.tail, frozen_norm=shape.norm == "frozen")
    return trunk, OneMapPool(pieces.tail_size, trunk.strides[0], kind), tail, pieces.tail_channels


class StageHead(nn.Module):
    """The last stage of a backbone as the head of a detector."""

    def __init__(self, stage: nn.Module, *, frozen_norm: bool) -> None:
        super().__init__()
        self.stage, self.frozen_norm = stage, frozen_norm

    def train(self, mode: bool = True) -> StageHead:
        """Switch to training, but for statistics that are frozen."""
        super().train(mode)
        if self.frozen_norm:
            freeze_statistics(self)
        return self

    def forward(self, features_RDSS: torch.Tensor) -> torch.Tensor:
        """Return features_RD of regions."""
        return self.stage(features_RDSS)


def _proposer(trunk: DetectorBackbone, shape: DetectorConfig) -> RegionProposalNetwork:
    sides = shape.anchor_sides_px
    by_map: Any = tuple((side,) for side in sides) if shape.head == "fpn" else (sides,)
    anchors = AnchorGenerator(by_map, (RATIOS,) * len(by_map))
    head = AnchorHead(trunk.out_channels, anchors.num_anchors_per_location()[0])
    training, testing = shape.proposals_per_image
    # Of a pyramid so many of each map come before suppression, of one map six times as many, as usual.
    before = 1 if shape.head == "fpn" else 6
    return RegionProposalNetwork(
        anchors,
        head,
        0.7,
        0.3,
        256,
        0.5,
        {"training": before * training, "testing": before * testing},
        {"training": training, "testing": testing},
        0.7,
    )
