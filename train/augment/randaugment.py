"""RandAugment over whole batches on the device, with torchvision's results.

Images that drew the same operation are changed together; which they draw follows from the sample's chance. What an
operation needs for each image is worked out here, on the host, and goes to the device in one piece: torchvision's own
operations make matrices and kernels there, number by number, and wait for the GPU each time.
"""

# B images, G of them in a group, O operations, H height, W width

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import RecipeError
from train.augment import chance
from train.augment.chance import Chances
from train.augment.color import GREY
from train.augment.upload import upload

BINS = 31  # of the magnitude, as in torchvision; AutoAugment's had 10
NUMBERS = 6  # that an operation may need for each image

Change = Callable[[Tensor, Tensor], Tensor]  # images_G3HW, uint8, and numbers_GN, float32


@dataclass(frozen=True)
class RandAugmentOp:
    """An operation of RandAugment.

    Args:
        change: of the images; operations that share it are done together.
        numbers: what it needs for an image, by the amount, the image's height and its width.
        most: the amount at the highest magnitude.
        least: at the lowest.
        signed: whether half of the images are changed by the negative amount.
        relative: whether the amount is a share of the image's width or height ("width", "height").
    """

    change: Change
    numbers: Callable[[float, int, int], Sequence[float]] = lambda amount, height, width: (amount,)
    most: float = 0.0
    least: float = 0.0
    signed: bool = False
    relative: str = ""

    def amount(self, magnitude: int, height: int, width: int) -> float:
        """Return how much to change, in the operation's own unit."""
        scale = {"height": height, "width": width}.get(self.relative, 1.0)
        low, high = self.least * scale, self.most * scale
        return float(torch.linspace(low, high, BINS)[magnitude])  # float32, as torchvision rounds it


def _kept(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    return images_G3HW


def _moved(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    """Take each pixel from where a matrix says, the nearest one; black from outside.

    The numbers are the matrices' two rows, for places in pixels from the middle; they give shares of half the image.
    """
    height, width = images_G3HW.shape[-2:]
    device = images_G3HW.device
    x_W = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=device)
    y_H1 = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=device)[:, None]
    rows_G6 = numbers_GN[:, :, None, None]
    x_GHW, y_GHW = (
        torch.addcmul(x_W * rows_G6[:, at], y_H1, rows_G6[:, at + 1]) + rows_G6[:, at + 2] for at in (0, 3)
    )
    grid_GHW2 = torch.stack([x_GHW, y_GHW], dim=-1)
    taken = functional.grid_sample(images_G3HW.float(), grid_GHW2, mode="nearest", align_corners=False)
    return taken.to(torch.uint8)


def _matrix(rows: Sequence[float], height: int, width: int) -> list[float]:
    """Return the matrix of `_moved`, from pixels to shares, rounded as torchvision rounds it."""
    halves = np.repeat(np.array([width / 2, height / 2], np.float32), 3)
    return (np.array(rows, np.float32) / halves).tolist()


def _rotation(degrees: float, height: int, width: int) -> list[float]:
    turn = math.radians(degrees % 360)
    return _matrix((math.cos(turn), -math.sin(turn), 0, math.sin(turn), math.cos(turn), 0), height, width)


def _blended(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    """Mix each image with black, its grey self and its mean grey; the numbers are its own weight and those of the two.

    One pass for all three: nothing is added where a weight is 0.
    """
    own_G111, grey_G111, mean_G111 = _columns(numbers_GN, 3)
    red, green, blue = images_G3HW.unbind(1)
    lightness = red.mul(GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])
    lightness_G1HW = lightness.floor_()[:, None]
    middle_G111 = lightness_G1HW.mean(dim=(2, 3), keepdim=True)
    mixed = images_G3HW.mul(own_G111)
    mixed.addcmul_(lightness_G1HW, grey_G111).addcmul_(middle_G111, mean_G111)
    return mixed.clamp_(0, 255).to(torch.uint8)


def _sharpened(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    """Mix each image, but for its edge, with a blurred self, in which a pixel weighs five times its neighbours."""
    if min(images_G3HW.shape[-2:]) <= 2:
        return images_G3HW
    pixels_G3HW = images_G3HW.float()
    inner = pixels_G3HW[:, :, 1:-1, 1:-1]
    blurred = functional.avg_pool2d(pixels_G3HW, 3, stride=1, divisor_override=13).add_(inner, alpha=4 / 13)
    inner.addcmul_(blurred.round_().sub_(inner), 1 - numbers_GN[:, 0, None, None, None])
    return pixels_G3HW.clamp_(0, 255).to(torch.uint8)


def _posterized(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    return images_G3HW & _columns(numbers_GN, 1)[0].to(torch.uint8)


def _solarized(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    return torch.where(images_G3HW >= _columns(numbers_GN, 1)[0], ~images_G3HW, images_G3HW)


def _spread(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    """Stretch each channel of an image to all of 0..255; one that is all of a value stays."""
    pixels_G3HW = images_G3HW.float()
    least = pixels_G3HW.amin(dim=(2, 3), keepdim=True)
    scale = pixels_G3HW.amax(dim=(2, 3), keepdim=True).sub_(least).mul_(1 / 255)
    flat = scale == 0
    pixels_G3HW.sub_(least.masked_fill_(flat, 0)).div_(scale.masked_fill_(flat, 1))
    return pixels_G3HW.clamp_(0, 255).to(torch.uint8)


def _equalized(images_G3HW: Tensor, numbers_GN: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as torchvision

    return torchvision.equalize(images_G3HW)


def _columns(numbers_GN: Tensor, count: int) -> tuple[Tensor, ...]:
    return numbers_GN[:, :count, None, None, None].unbind(1)


def _mask(bits: int) -> int:
    return ((1 << bits) - 1) << (8 - bits)


OPERATIONS: dict[str, RandAugmentOp] = {
    "Identity": RandAugmentOp(_kept),
    "ShearX": RandAugmentOp(
        _moved, lambda s, h, w: _matrix((1, s, s * h / 2, 0, 1, 0), h, w), 0.3, signed=True
    ),
    "ShearY": RandAugmentOp(
        _moved, lambda s, h, w: _matrix((1, 0, 0, s, 1, s * w / 2), h, w), 0.3, signed=True
    ),
    "TranslateX": RandAugmentOp(
        _moved,
        lambda pixels, h, w: _matrix((1, 0, -int(pixels), 0, 1, 0), h, w),
        150 / 331,
        signed=True,
        relative="width",
    ),
    "TranslateY": RandAugmentOp(
        _moved,
        lambda pixels, h, w: _matrix((1, 0, 0, 0, 1, -int(pixels)), h, w),
        150 / 331,
        signed=True,
        relative="height",
    ),
    "Rotate": RandAugmentOp(_moved, _rotation, 30.0, signed=True),
    "Brightness": RandAugmentOp(_blended, lambda more, h, w: (1 + more, 0, 0), 0.9, signed=True),
    "Color": RandAugmentOp(_blended, lambda more, h, w: (1 + more, -more, 0), 0.9, signed=True),
    "Contrast": RandAugmentOp(_blended, lambda more, h, w: (1 + more, 0, -more), 0.9, signed=True),
    "Sharpness": RandAugmentOp(_sharpened, lambda more, h, w: (1 + more,), 0.9, signed=True),
    "Posterize": RandAugmentOp(_posterized, lambda bits, h, w: (_mask(round(bits)),), 4.0, 8.0),
    "Solarize": RandAugmentOp(_solarized, lambda share, h, w: (255 * share,), 0.0, 1.0),
    "AutoContrast": RandAugmentOp(_spread),
    "Equalize": RandAugmentOp(_equalized),
}
NAMES = tuple(OPERATIONS)
# The operations one after another, those that are done together as one: the change, and behind which place it ends.
GROUPS = [
    (change, max(places) + 1)
    for change, places in itertools.groupby(range(len(NAMES)), lambda at: OPERATIONS[NAMES[at]].change)
]


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

    def __call__(self, images_B3HW: Tensor, chances_B: Chances, epoch: int) -> Tensor:
        """Return changed images, uint8; those that were given stay as they are."""
        table_O2N = _table(self.magnitude, *images_B3HW.shape[-2:])
        place_B = np.arange(len(images_B3HW))  # of each image among those that were changed so far
        changed_B3HW = images_B3HW
        for number in range(self.num_ops):
            operation_B, negative_B = draw(chances_B, epoch, number)
            if self.probability < 1:
                done_B = chance.uniform(chances_B, epoch, f"randaugment/{number}/done") < self.probability
                operation_B = np.where(done_B, operation_B, NAMES.index("Identity"))
            order_B = np.argsort(operation_B, kind="stable")
            sorted_B3HW = _picked(changed_B3HW, place_B[order_B])
            numbers_BN = upload(table_O2N[operation_B, negative_B.astype(int)][order_B], images_B3HW.device)
            changed_B3HW = _changed(sorted_B3HW, operation_B[order_B], numbers_BN)
            place_B = np.argsort(order_B)
        return _picked(changed_B3HW, place_B)


def draw(chances_B: Chances, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's operation (a place in NAMES) and whether its amount is negative, for the n-th operation."""
    operation_B = (chance.uniform(chances_B, epoch, f"randaugment/{number}/op") * len(NAMES)).astype(np.int64)
    negative_B = chance.uniform(chances_B, epoch, f"randaugment/{number}/sign") < 0.5
    signed = np.array([operation.signed for operation in OPERATIONS.values()])
    return operation_B, negative_B & signed[operation_B]


def apply(name: str, images_G3HW: Tensor, magnitude: int, sign: int = 1) -> Tensor:
    """Return images changed by one operation, uint8."""
    numbers_N = _table(magnitude, *images_G3HW.shape[-2:])[NAMES.index(name), int(sign < 0)]
    numbers_GN = upload(np.tile(numbers_N, (len(images_G3HW), 1)), images_G3HW.device)
    return OPERATIONS[name].change(images_G3HW, numbers_GN)


@lru_cache(maxsize=16)
def _table(magnitude: int, height: int, width: int) -> np.ndarray:
    """Return what each operation needs, by a positive and by a negative amount: numbers_O2N, float32."""
    table_O2N = np.zeros((len(NAMES), 2, NUMBERS), np.float32)
    for at, operation in enumerate(OPERATIONS.values()):
        amount = operation.amount(magnitude, height, width)
        for negative, signed in enumerate((amount, -amount if operation.signed else amount)):
            numbers = operation.numbers(signed, height, width)
            table_O2N[at, negative, : len(numbers)] = numbers
    return table_O2N


def _changed(sorted_B3HW: Tensor, operation_B: np.ndarray, numbers_BN: Tensor) -> Tensor:
    """Change images that stand in the order of their operations."""
    parts, start = [], 0
    for change, behind in GROUPS:
        stop = int(np.searchsorted(operation_B, behind))
        if stop > start:
            parts.append(change(sorted_B3HW[start:stop], numbers_BN[start:stop]))
        start = stop
    return torch.cat(parts) if parts else sorted_B3HW


def _picked(images_B3HW: Tensor, rows_B: np.ndarray) -> Tensor:
    return images_B3HW.index_select(0, upload(rows_B, images_B3HW.device))
