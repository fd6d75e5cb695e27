"""RandAugment over whole batches on the device, with torchvision's own operations.

Images that drew the same operation and sign are changed together; which they draw follows from the sample's chance.
"""

# B images, G of them in a group, H height, W width

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.errors import RecipeError
from train import chances
from train.chances import Chances, Passes

BINS = 31  # of the magnitude, as in torchvision; AutoAugment's had 10

Change = Callable[[Tensor, float], Tensor]  # images_G3HW, uint8, and how much


@dataclass(frozen=True)
class Operation:
    """An operation of RandAugment.

    Args:
        change: of the images by an amount.
        most: the amount at the highest magnitude.
        least: at the lowest.
        signed: whether half of the images are changed by the negative amount.
        relative: whether the amount is a share of the image's width or height ("width", "height").
    """

    change: Change
    most: float = 0.0
    least: float = 0.0
    signed: bool = False
    relative: str = ""

    def amount(self, magnitude: int, height: int, width: int) -> float:
        """Return how much to change, in the operation's own unit."""
        scale = {"height": height, "width": width}.get(self.relative, 1.0)
        low, high = self.least * scale, self.most * scale
        return float(torch.linspace(low, high, BINS)[magnitude])  # float32, as torchvision rounds it


def _affine(
    images: Tensor, *, shear: tuple[float, float] = (0.0, 0.0), shift: tuple[int, int] = (0, 0)
) -> Tensor:
    from torchvision.transforms.v2 import functional

    center = [0.0, 0.0] if any(shear) else None
    return functional.affine(
        images, angle=0.0, translate=list(shift), scale=1.0, shear=list(shear), center=center
    )


def _named(name: str, *, round_: bool = False, offset: float = 0.0, scale: float = 1.0) -> Change:
    """Return torchvision's operation of a name, which takes an amount."""

    def change(images: Tensor, amount: float) -> Tensor:
        from torchvision.transforms.v2 import functional

        value = offset + amount * scale
        return getattr(functional, name)(images, round(value) if round_ else value)

    return change


def _plain(name: str) -> Change:
    """Return torchvision's operation of a name, which takes none."""

    def change(images: Tensor, amount: float) -> Tensor:
        from torchvision.transforms.v2 import functional

        return getattr(functional, name)(images)

    return change


def _degrees(slope: float) -> float:
    return math.degrees(math.atan(slope))


OPERATIONS: dict[str, Operation] = {
    "Identity": Operation(lambda images, _: images),
    "ShearX": Operation(
        lambda images, slope: _affine(images, shear=(_degrees(slope), 0.0)), 0.3, signed=True
    ),
    "ShearY": Operation(
        lambda images, slope: _affine(images, shear=(0.0, _degrees(slope))), 0.3, signed=True
    ),
    "TranslateX": Operation(
        lambda images, pixels: _affine(images, shift=(int(pixels), 0)),
        150 / 331,
        signed=True,
        relative="width",
    ),
    "TranslateY": Operation(
        lambda images, pixels: _affine(images, shift=(0, int(pixels))),
        150 / 331,
        signed=True,
        relative="height",
    ),
    "Rotate": Operation(_named("rotate"), 30.0, signed=True),
    "Brightness": Operation(_named("adjust_brightness", offset=1.0), 0.9, signed=True),
    "Color": Operation(_named("adjust_saturation", offset=1.0), 0.9, signed=True),
    "Contrast": Operation(_named("adjust_contrast", offset=1.0), 0.9, signed=True),
    "Sharpness": Operation(_named("adjust_sharpness", offset=1.0), 0.9, signed=True),
    "Posterize": Operation(_named("posterize", round_=True), 4.0, 8.0),
    "Solarize": Operation(_named("solarize", scale=255.0), 0.0, 1.0),
    "AutoContrast": Operation(_plain("autocontrast")),
    "Equalize": Operation(_plain("equalize")),
}
NAMES = tuple(OPERATIONS)


@dataclass(frozen=True)
class RandAugment:
    """Change each image by some operations, drawn for it among 14.

    Pixels that come from outside the image are black; nothing is interpolated, as in torchvision.

    Args:
        num_ops: operations an image, one after the other.
        magnitude: of all of them, 0..30.
        probability: that an operation is done at all; timm's is 0.5.

    Source: Cubuk et al., NeurIPS 2020, https://arxiv.org/abs/1909.13719
    """

    num_ops: int = 2
    magnitude: int = 9
    probability: float = 1.0

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            RecipeError: the first of them.
        """
        if self.num_ops < 0:
            raise RecipeError(f"num_ops is {self.num_ops}", hint="it must be 0 or more")
        if not 0 <= self.magnitude < BINS:
            raise RecipeError(f"magnitude is {self.magnitude}", hint=f"it must be 0 to {BINS - 1}")

    def __call__(self, images_B3HW: Tensor, chances_B: Chances, passes: Passes) -> Tensor:
        """Return changed images, uint8; those that were given stay as they are."""
        changed_B3HW = images_B3HW.clone()
        for number in range(self.num_ops):
            operation_B, negative_B = draw(chances_B, passes, number)
            if self.probability < 1:
                done_B = chances.uniform(chances_B, passes, f"randaugment/{number}/done") < self.probability
                operation_B = np.where(done_B, operation_B, NAMES.index("Identity"))
            for index, name in enumerate(NAMES):
                for sign in (1, -1):
                    rows_G = np.flatnonzero((operation_B == index) & (negative_B == (sign < 0)))
                    if len(rows_G) and name != "Identity":
                        at_G = torch.from_numpy(rows_G).to(images_B3HW.device, non_blocking=True)
                        changed_B3HW[at_G] = apply(name, changed_B3HW[at_G], self.magnitude, sign)
        return changed_B3HW


def draw(chances_B: Chances, passes: Passes, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's operation (a place in NAMES) and whether its amount is negative, for the n-th operation."""
    operation_B = (chances.uniform(chances_B, passes, f"randaugment/{number}/op") * len(NAMES)).astype(
        np.int64
    )
    negative_B = chances.uniform(chances_B, passes, f"randaugment/{number}/sign") < 0.5
    signed = np.array([operation.signed for operation in OPERATIONS.values()])
    return operation_B, negative_B & signed[operation_B]


def apply(name: str, images_G3HW: Tensor, magnitude: int, sign: int = 1) -> Tensor:
    """Return images changed by one operation, uint8."""
    operation = OPERATIONS[name]
    amount = operation.amount(magnitude, *images_G3HW.shape[-2:])
    return operation.change(images_G3HW, amount * sign if operation.signed else amount)
