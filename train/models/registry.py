"""Models by name: a backbone that turns images into features, and a linear head on top.

Weights start from `seed`, never from somebody's checkpoint: the experiments compare what datasets teach. The
backbone is drawn first and from a generator of its own, so it starts equal whatever the number of classes.
"""

# B images, D features, C classes, H height, W width

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from curate.errors import RecipeError, did_you_mean, first_line
from train.models.alexnet import AlexNet
from train.models.encoders import PREFIX, clip_config, clip_names, image_encoder

Stem = Literal["imagenet", "small"]

Colour = tuple[float, float, float]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # as `run.json` is checked
Spread = tuple[Positive, Positive, Positive]

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels, red green blue, in 0..1
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a model again.

    Args:
        name: as `build` knows it.
        stem: "small" is a 3x3 convolution of stride 1 without max-pooling, for images of 32 to 64 px.
        num_classes: outputs of the head; 0 for none, and the model gives features.
        image_size: side of the images it was made for, in pixels.
        mean: of the pixels it was trained on, red green blue, in 0..1: taken from each pixel before it is seen.
        std: their spread, by which the rest is divided.
    """

    name: str
    stem: Stem
    num_classes: int
    image_size: int
    mean: Colour = MEAN
    std: Spread = STD

    def normalize(self, images_B3HW: Tensor) -> Tensor:
        """Turn images (uint8, 0..255) into what the model was trained on; see `normalize`."""
        return normalize(images_B3HW, self.mean, self.std)


class Model(nn.Module):
    """A backbone and a head. Make one with `build`."""

    def __init__(self, backbone: nn.Module, head: nn.Linear | nn.Identity, feature_dim: int, spec: ModelSpec):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.feature_dim = feature_dim
        self.spec = spec

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return logits_BC of normalised images, float32 (features_BD where there is no head)."""
        features_BD = self.backbone(images_B3HW)
        return in_float32(self.head, features_BD) if isinstance(self.head, nn.Linear) else features_BD


def in_float32(head: nn.Module, features_BD: Tensor) -> Tensor:
    """Return what a head makes of features, float32 also under autocast: in bf16 many logits would be equal.

    Then the order of the classes, and the accuracy, would follow from their numbers.
    """
    if features_BD.is_meta:  # FLOPs are counted there, where autocast is not known
        return head(features_BD)
    with torch.autocast(features_BD.device.type, enabled=False):
        return head(features_BD.float())


def build(name: str, *, num_classes: int, stem: Stem = "imagenet", image_size: int, seed: int = 0) -> Model:
    """Build a model with fresh weights, on the CPU.

    The weights depend on `seed` and the name alone; torch's global generator is left as it was.

    Args:
        name: resnet18, resnet50, resnet101 (torchvision's), alexnet (of 2012) or alexnet-torchvision, convnet
            (ours, small), the image encoder of any model of open_clip, as clip/RN50, or any model of timm, as NAME
            or timm/NAME. The features of such an encoder are its embeddings, after the projection.
        num_classes: outputs of the head; 0 for no head.
        stem: "small" is for torchvision's ResNets alone. At 64 px it costs 15 times the ImageNet stem.
        image_size: side of the images in pixels.

    Raises:
        RecipeError: no such model, it has no small stem, or it cannot take images so small.
    """
    if stem not in get_args(Stem):
        raise RecipeError(f"no stem {stem!r}", hint=f"one of: {', '.join(get_args(Stem))}")
    if num_classes < 0 or image_size < 1:
        raise RecipeError(f"{name}: {num_classes} classes at {image_size} px cannot be built")
    make = _maker(name, stem, image_size)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            seed
        )  # the CPU's generator; torch.manual_seed would reach the GPU's
        backbone = make()
        feature_dim = _feature_dim(backbone, name, image_size)
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(feature_dim, num_classes) if num_classes else nn.Identity()
    return Model(backbone, head, feature_dim, ModelSpec(name, stem, num_classes, image_size))


def rebuild(spec: ModelSpec, *, num_classes: int | None = None, seed: int = 0) -> Model:
    """Build the model of a spec again, with fresh weights; `num_classes` replaces the spec's."""
    if num_classes is not None:
        spec = dataclasses.replace(spec, num_classes=num_classes)
    model = build(
        spec.name, num_classes=spec.num_classes, stem=spec.stem, image_size=spec.image_size, seed=seed
    )
    model.spec = spec
    return model


def normalize(images_B3HW: Tensor, mean: Colour = MEAN, std: Colour = STD) -> Tensor:
    """Turn images (uint8, 0..255) into what a backbone takes: float32, by ImageNet's mean and spread or others.

    It is channels_last, and made where the images are: what travels to a GPU is a quarter of the bytes.
    """
    mean_131, std_131 = _pixels(images_B3HW.device, mean, std)
    floats_B3HW = images_B3HW.to(torch.float32, memory_format=torch.channels_last)
    return floats_B3HW.mul_(1 / (255 * std_131)).sub_(mean_131 / std_131)


@functools.cache
def _pixels(device: torch.device, mean: Colour, std: Colour) -> tuple[Tensor, Tensor]:
    """Return mean and spread, sent to the device once: a GPU would be waited for each time."""
    with torch.inference_mode(False):
        return tuple(torch.tensor(rgb, device=device).view(1, 3, 1, 1) for rgb in (mean, std))  # type: ignore[return-value]


class ConvNet(nn.Module):
    """Four stages of convolution, max-pooling, batch norm, ReLU: for 32 to 64 px on a CPU.

    Pooling before the norm costs a fifth less time than strides do, and learned more: 17.4 % against 14.7 % of
    85 classes of Tiny-ImageNet at 32 px after 30,000 samples (one seed).
    """

    WIDTHS = (32, 64, 128, 256)

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, width in zip((3, *self.WIDTHS), self.WIDTHS, strict=False):
            layers.append(nn.Conv2d(inputs, width, 3, padding=1, bias=False))
            if width != self.WIDTHS[-1]:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.stages = nn.Sequential(*layers)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return features_BD, D = 256."""
        return self.stages(images_B3HW).mean(dim=(2, 3))


def _resnet(name: str, stem: Stem) -> nn.Module:
    import torchvision

    network = torchvision.models.get_model(name, weights=None)
    if stem == "small":
        network.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    network.fc = nn.Identity()
    return network


def _alexnet_torchvision() -> nn.Module:
    import torchvision

    network = torchvision.models.alexnet(weights=None)
    network.classifier = network.classifier[:-1]  # ends in fc7 and its ReLU: 4096 features
    return network


RESNETS = ("resnet18", "resnet50", "resnet101")
OTHERS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet-torchvision": _alexnet_torchvision,
    "convnet": ConvNet,
}
OURS = (*RESNETS, *OTHERS)


def _maker(name: str, stem: Stem, image_size: int) -> Callable[[], nn.Module]:
    """Return what makes the backbone of `name`, having checked that there is one."""
    if name in RESNETS:
        return lambda: _resnet(name, stem)
    if name.startswith(PREFIX):
        clip_config(name)
    elif name not in OURS:
        timm_name = _timm_name(name)
    if stem == "small":
        raise RecipeError(
            f"{name} has no small stem", hint=f"leave `stem` out, or take one of: {', '.join(RESNETS)}"
        )
    if name in OTHERS:
        return OTHERS[name]
    if name.startswith(PREFIX):
        return lambda: image_encoder(name, image_size)
    return lambda: _timm(timm_name, image_size)


def _timm_name(name: str) -> str:
    import timm

    short = name.removeprefix("timm/")
    if not timm.is_model(short):
        hint = did_you_mean(short, [*OURS, *timm.list_models()]) or did_you_mean(PREFIX + short, clip_names())
        hint = hint or f"one of: {', '.join(OURS)}, or any model of timm"
        raise RecipeError(f"no model {name!r}", hint=hint)
    if "." in short:  # timm's tag of a checkpoint
        raise RecipeError(
            f"{name!r} names pre-trained weights, and these are never loaded",
            hint=f"write {short.partition('.')[0]!r}",
        )
    return short


def _timm(name: str, image_size: int) -> nn.Module:
    import timm

    state = torch.default_generator.get_state()
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, img_size=image_size)
    except TypeError:  # a convolutional network, which takes any size and knows no such option
        torch.default_generator.set_state(state)
        return timm.create_model(name, pretrained=False, num_classes=0)


@torch.no_grad()
def _feature_dim(backbone: nn.Module, name: str, image_size: int) -> int:
    """Return D from one blank image; what timm says of itself does not hold for every head it cuts off."""
    backbone.eval()
    try:
        features_BD = backbone(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        first = first_line(error)
        hint = "take a smaller image_size" if "memory" in first else "take a larger image_size"
        raise RecipeError(f"{name} cannot take images of {image_size} px ({first})", hint=hint) from error
    finally:
        backbone.train()
    return features_BD.shape[1]
