"""Parts of a detector that differ from torchvision's: in float32 where boxes are made, and of known strides."""

# B images, D features, R regions, K classes with the background

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_iou, roi_align, roi_pool
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock
from torchvision.ops.poolers import initLevelMapper

from train.models.registry import in_float32
from train.transfer.detection.maps import FeatureMaps, TimmFeatureMaps, freeze_statistics, ordered

PYRAMID = (4, 8, 16, 32, 64)  # strides of a pyramid; regions are cut from all but the last
Sizes = list[tuple[int, int]]


class DetectorBackbone(nn.Module):
    """Maps of a backbone as torchvision's detectors take them: the coarsest alone, or a pyramid of them.

    Args:
        maps: of the backbone.
        pyramid_width: channels of the pyramid; None for the coarsest map alone.
    """

    def __init__(self, maps: FeatureMaps | TimmFeatureMaps, pyramid_width: int | None) -> None:
        super().__init__()
        self.maps = maps
        used = sorted(stride for stride in maps.channels if stride in PYRAMID)
        if pyramid_width is None:
            self.strides: tuple[int, ...] = (max(maps.channels),)
            self.out_channels = maps.channels[self.strides[0]]
            self.pyramid = None
        else:
            self.strides = tuple(stride for stride in PYRAMID if stride >= used[0])
            self.out_channels = pyramid_width
            more = HalvedMaps([str(stride) for stride in self.strides if stride > used[-1]])
            inputs = [maps.channels[stride] for stride in used]
            self.pyramid = FeaturePyramidNetwork(inputs, pyramid_width, extra_blocks=more)
        self.used = used

    def train(self, mode: bool = True) -> DetectorBackbone:
        """Switch to training, but for statistics that are frozen."""
        super().train(mode)
        if self.maps.frozen_norm:
            freeze_statistics(self.maps)
        return self

    def forward(self, images_B3HW: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps_BDHW in float32, by stride, the finest first."""
        maps = self.maps(images_B3HW)
        if self.pyramid is None:
            return ordered({self.strides[0]: maps[self.strides[0]]})
        levels = self.pyramid(ordered({stride: maps[stride] for stride in self.used}))
        return OrderedDict((name, each.float()) for name, each in levels.items())


class HalvedMaps(ExtraFPNBlock):
    """Coarser maps than a backbone has: every second place of the one before.

    Args:
        names: of the maps to add.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.more = names

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Return the maps with those added."""
        for name in self.more:
            results.append(nn.functional.max_pool2d(results[-1], 1, 2, 0))
            names.append(name)
        return results, names


class AnchorHead(RPNHead):
    """torchvision's head of a region proposal network, its answers in float32."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return whether there is something, and where, for each anchor of each map."""
        logits, boxes = super().forward(x)
        return [each.float() for each in logits], [each.float() for each in boxes]


class BoxPredictor(nn.Module):
    """Class and box of a region, in float32; a box for each class. Begins as Fast R-CNN's does.

    Args:
        inputs: D.
        classes: K.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(inputs, classes)
        self.bbox_pred = nn.Linear(inputs, classes * 4)
        for layer, spread in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)

    def forward(self, features_RD: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits_RK and boxes [R, 4K]."""
        return in_float32(self.cls_score, features_RD), in_float32(self.bbox_pred, features_RD)


class OneMapPool(nn.Module):
    """Features of regions, cut from one map.

    Args:
        size: places of a side.
        stride: of the map.
        kind: "align" samples between places; "max" takes the largest of the places, as Fast R-CNN did.
    """

    def __init__(self, size: int, stride: int, kind: str) -> None:
        super().__init__()
        self.size, self.stride, self.kind = size, stride, kind

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes) -> Tensor:
        """Return features [R, D, size, size]."""
        (only,) = maps.values()
        if self.kind == "max":
            return roi_pool(only, boxes, self.size, 1 / self.stride)
        return roi_align(only, boxes, self.size, 1 / self.stride, sampling_ratio=2)


def pyramid_pool(strides: tuple[int, ...], size: int = 7) -> MultiScaleRoIAlign:
    """Return what cuts regions from a pyramid, large ones from coarse maps, at the strides that it has."""
    pool = MultiScaleRoIAlign([str(stride) for stride in strides], size, sampling_ratio=2)
    # Else they are guessed from the first batch, and wrongly from slim images.
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = initLevelMapper(strides[0].bit_length() - 1, strides[-1].bit_length() - 1)
    return pool


class ResizeWithProposals(GeneralizedRCNNTransform):
    """torchvision's transform, which takes proposals along as it does boxes."""

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, Any]:
        """Return an image at its new size, and its boxes and proposals there."""
        before = image.shape[-2:]
        resized, moved = super().resize(image, target)
        if moved is not None and "proposals" in moved:
            moved["proposals"] = resize_boxes(moved["proposals"], before, resized.shape[-2:])
        return resized, moved


class GivenProposals(nn.Module):
    """Stands where a region proposal network would: the proposals come with the images."""

    def forward(
        self, images: Any, maps: dict[str, Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the proposals, and no losses."""
        assert targets is not None
        return [target["proposals"] for target in targets], {}


class RegionHeads(RoIHeads):
    """torchvision's heads, whose background may be kept to regions that touch an object.

    Args:
        background_iou: the least overlap of a region that is learned from as background; not asked of an image
            without objects.
    """

    def __init__(self, *args: Any, background_iou: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self.background_iou = background_iou

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the object and the class of each proposal; -1 where it is passed over."""
        matched, labels = super().assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        for boxes_R4, truths_M4, labels_R in zip(proposals, gt_boxes, labels, strict=True):
            if self.background_iou > 0 and len(truths_M4):
                far_R = box_iou(truths_M4, boxes_R4).amax(dim=0) < self.background_iou
                labels_R[far_R] = torch.where(labels_R[far_R] == 0, -1, labels_R[far_R])
        return matched, labels
