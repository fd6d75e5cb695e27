"""Backbones as detectors use them: maps of features at several strides, and what comes after the last of them."""

# B images, D features, H height, W width, R regions

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from curate.errors import RecipeError
from train.models.registry import Model

Norm = Literal["auto", "frozen", "batch", "group"]
GROUPS = 32  # of channels, where group normalisation takes the place of batch normalisation
SUPPORTED = (
    "resnet18, resnet50, resnet101, alexnet, alexnet-torchvision, convnet, clip/RN50 and its like, and convolutional "
    "networks of timm"
)


@dataclass(frozen=True)
class BackboneStages:
    """A backbone in pieces, one after another.

    Args:
        stages: each takes what the one before gives.
        strides: pixels of the image from one place to the next, after each stage.
        channels: D after each stage.
        tail: what turns the features of a region, cut out of the map before it, into features_RD; None where the
            backbone cannot be cut there.
        tail_channels: D that the tail gives.
        tail_stages: how many stages come before it.
        tail_size: places of a side that it takes.
    """

    stages: nn.ModuleList
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    tail: nn.Module | None = None
    tail_channels: int = 0
    tail_stages: int = 0
    tail_size: int = 0


class FeatureMaps(nn.Module):
    """Stages of a backbone, giving their maps by stride; normalisation may be frozen."""

    def __init__(self, pieces: BackboneStages, stages: int, norm: Norm, frozen_stages: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(list(pieces.stages)[:stages])
        self.strides = pieces.strides[:stages]
        self.channels = dict(
            zip(self.strides, pieces.channels[:stages], strict=True)
        )  # of the last at a stride
        self.frozen_norm = norm == "frozen"
        for stage in self.stages[:frozen_stages]:
            stage.requires_grad_(False)

    def forward(self, images_B3HW: Tensor) -> dict[int, Tensor]:
        """Return the last map of each stride, maps_BDHW in float32."""
        maps: dict[int, Tensor] = {}
        features_BDHW = images_B3HW.contiguous(memory_format=torch.channels_last)
        for stage, stride in zip(self.stages, self.strides, strict=True):
            features_BDHW = stage(features_BDHW)
            maps[stride] = features_BDHW
        return {
            stride: each.float() for stride, each in maps.items()
        }  # boxes are made with the maps' precision


class TimmFeatureMaps(nn.Module):
    """Maps of a network of timm, by stride."""

    def __init__(self, network: Any, norm: Norm) -> None:
        super().__init__()
        self.network = network
        self.channels = self._measure()
        self.frozen_norm = norm == "frozen"

    @torch.no_grad()
    def _measure(self) -> dict[int, int]:
        """Return D of each stride, from a blank image that is no square."""
        self.network.eval()
        height, width = 192, 320
        found: dict[int, int] = {}
        for map_BDHW in self._maps(torch.zeros(1, 3, height, width)):
            stride = height // map_BDHW.shape[2]
            if map_BDHW.ndim == 4 and map_BDHW.shape[2:] == (height // stride, width // stride):
                found[stride] = map_BDHW.shape[1]
        return found

    def _maps(self, images_B3HW: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(images_B3HW, intermediates_only=True)

    def forward(self, images_B3HW: Tensor) -> dict[int, Tensor]:
        """Return the last map of each stride, maps_BDHW in float32."""
        height = images_B3HW.shape[2]
        images_B3HW = images_B3HW.contiguous(memory_format=torch.channels_last)
        return {height // one.shape[2]: one.float() for one in self._maps(images_B3HW)}


def set_norms(module: nn.Module, norm: Norm) -> None:
    """Prepare batch normalisation in place: "frozen" keeps weights as they are, "group" takes its place."""
    for name, child in module.named_children():
        if not isinstance(child, nn.modules.batchnorm._BatchNorm):
            set_norms(child, norm)
        elif norm == "frozen":
            child.requires_grad_(False)
        elif norm == "group":
            if type(child) is not nn.BatchNorm2d:
                raise RecipeError(
                    f"norm group: {type(child).__name__} is more than a norm", hint="take batch"
                )
            groups = next(
                g for g in range(min(GROUPS, child.num_features), 0, -1) if child.num_features % g == 0
            )
            setattr(module, name, nn.GroupNorm(groups, child.num_features))


def freeze_statistics(module: nn.Module) -> None:
    """Let batch normalisation use the statistics it has; after every `.train()`, which undoes it."""
    for one in module.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm):
            one.eval()


def cut_backbone(model: Model) -> BackboneStages:
    """Cut a model of ours into stages.

    Raises:
        RecipeError: there is no way to, as for a transformer.
    """
    name, backbone = model.spec.name, cast(Any, model.backbone)
    if name in ("resnet18", "resnet50", "resnet101"):
        return _cut_resnet(backbone, small=model.spec.stem == "small")
    if name == "alexnet":
        return _cut_alexnet(backbone.conv, [backbone.fc6, backbone.fc7])
    if name == "alexnet-torchvision":
        return _cut_alexnet(backbone.features, [backbone.classifier[1], backbone.classifier[4]])
    if name == "convnet":
        return _cut_convnet(backbone.stages)
    if hasattr(backbone, "attnpool") and hasattr(backbone, "layer4"):  # open_clip's ResNets
        return _cut_clip(backbone)
    raise RecipeError(f"{name} gives no maps for a detector", hint=f"there are {SUPPORTED}")


def timm_maps(model: Model, norm: Norm) -> TimmFeatureMaps | None:
    """Return the maps of a model of timm, or None where it is none or has none."""
    if not hasattr(model.backbone, "forward_intermediates") or hasattr(model.backbone, "attnpool"):
        return None
    try:
        found = TimmFeatureMaps(model.backbone, norm)
    except (
        AssertionError,
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ):  # it takes one size of images alone
        return None
    return found if {8, 16, 32} <= set(found.channels) else None


class SpatialMean(nn.Module):
    """A region's map averaged over its places."""

    def forward(self, features_RDHW: Tensor) -> Tensor:
        """Return features_RD."""
        return features_RDHW.mean(dim=(2, 3))


def _cut_resnet(network: Any, *, small: bool) -> BackboneStages:
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    layers: list[Any] = [network.layer1, network.layer2, network.layer3, network.layer4]
    width = layers[-1][-1].conv2.out_channels * getattr(type(layers[-1][-1]), "expansion", 1)
    strides = (1, 1, 2, 4, 8) if small else (4, 4, 8, 16, 32)
    return _staged(stem, layers, 64, width, strides)


def _cut_clip(network: Any) -> BackboneStages:
    names = ("conv1", "bn1", "act1", "conv2", "bn2", "act2", "conv3", "bn3", "act3", "avgpool")
    stem = nn.Sequential(*(getattr(network, name) for name in names))
    layers: list[Any] = [network.layer1, network.layer2, network.layer3, network.layer4]
    return _staged(
        stem, layers, network.conv3.out_channels, layers[-1][-1].conv3.out_channels, (4, 4, 8, 16, 32)
    )


def _staged(
    stem: nn.Module, layers: list[Any], stem_width: int, width: int, strides: tuple[int, ...]
) -> BackboneStages:
    channels = (stem_width, width // 8, width // 4, width // 2, width)
    tail = nn.Sequential(layers[-1], SpatialMean())
    return BackboneStages(nn.ModuleList([stem, *layers]), strides, channels, tail, width, 4, 14)


def _cut_convnet(stages: Any) -> BackboneStages:
    ends = [i + 1 for i, layer in enumerate(stages) if isinstance(layer, nn.ReLU)]
    pieces = [nn.Sequential(*stages[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    channels = tuple(layer.out_channels for layer in stages if isinstance(layer, nn.Conv2d))
    return BackboneStages(
        nn.ModuleList(pieces),
        (2, 4, 8, 8),
        channels,
        nn.Sequential(pieces[-1], SpatialMean()),
        channels[-1],
        3,
        7,
    )


def _cut_alexnet(layers: Any, hidden: Sequence[Any]) -> BackboneStages:
    """Cut AlexNet before its last pooling, which is made of a region's own places: 6 x 6, for fc6 and fc7.

    Borders are padded as in Fast R-CNN's CaffeNet, so that the place (x, y) of the last map looks at the pixels around
    (16x, 16y).
    """
    convolutions = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    layers[convolutions[0]].padding = (5, 5)
    for i in pools[:2]:
        layers[i].padding = 1
    ends = [pools[0] + 1, pools[1] + 1, pools[2]]
    pieces = [nn.Sequential(*layers[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    channels = tuple(layers[convolutions[i]].out_channels for i in (0, 1, 4))
    rest = [module for layer in hidden for module in (layer, nn.ReLU(), nn.Dropout(0.5))]
    tail = nn.Sequential(nn.Flatten(1), *rest)
    return BackboneStages(nn.ModuleList(pieces), (8, 16, 16), channels, tail, hidden[-1].out_features, 3, 6)


def ordered(maps: dict[int, Tensor]) -> OrderedDict[str, Tensor]:
    """Return maps as torchvision's parts take them: by name, the finest first."""
    return OrderedDict((str(stride), maps[stride]) for stride in sorted(maps))
