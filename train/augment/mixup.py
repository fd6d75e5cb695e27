"""Mixup and CutMix: each image of a batch is mixed with another one, and so are their labels; on the device.

The share of an image and the place of a patch follow from the sample's chance, so they are equal for any number of
processes and after a resume. The partner is a neighbour in the batch, and is not: with several processes, it is the
neighbour in the process's part.
"""

# B images, C classes, H height, W width

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import RecipeError
from train.augment import chance
from train.augment.chance import Chances
from train.augment.upload import upload


class Boxes(NamedTuple):
    """A patch of each image, in pixels (int64, B): rows `top` up to `bottom`, columns `left` up to `right`."""

    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Mixup and CutMix of a batch.

    Args:
        mixup: alpha of Mixup, whose share of an image is drawn from Beta(alpha, alpha); 0 for no Mixup.
        cutmix: alpha of CutMix; 0 for no CutMix.
        switch: share of the mixed images that are cut, where both are wanted.
        fraction: share of the images that are mixed at all.
        smoothing: share of each label that is spread over all classes.

    Source: Zhang et al., ICLR 2018, https://arxiv.org/abs/1710.09412; Yun et al., ICCV 2019,
        https://arxiv.org/abs/1905.04899
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    switch: float = 0.5
    fraction: float = 1.0
    smoothing: float = 0.0

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            RecipeError: the first of them.
        """
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise RecipeError(f"{name} is {getattr(self, name)}", hint="it must be 0 or more")
        for name in ("switch", "fraction", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} is {getattr(self, name)}", hint="it must be a share, in [0, 1]")

    def __bool__(self) -> bool:
        return (self.mixup > 0 or self.cutmix > 0) and self.fraction > 0

    def __call__(
        self, images_B3HW: Tensor, labels_B: Tensor, chances_B: Chances, epoch: int, *, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        """Return the mixed images and their targets_BC, float32, each of sum 1.

        Args:
            images_B3HW: floats, normalised or not.
            labels_B: int64, on the images' device.
            chances_B: the samples' chances.
            epoch: the mix differs by it.
            num_classes: C.
        """
        labels_B2 = torch.stack([labels_B, labels_B.roll(1)], dim=1)
        if not self:
            return images_B3HW, targets(labels_B2, np.ones(len(labels_B)), num_classes, self.smoothing)
        height, width = images_B3HW.shape[-2:]
        kept_B = shares(chances_B, epoch, self)
        cut_B = cuts(chances_B, epoch, self)
        boxes = patches(np.where(cut_B, kept_B, 1.0), chances_B, epoch, height, width)
        cut_kept_B = 1 - (boxes.bottom - boxes.top) * (boxes.right - boxes.left) / (height * width)
        kept_B = np.where(
            cut_B, cut_kept_B, kept_B
        )  # as much as was cut in the end: an edge may have cut it short
        weights_BHW = weights(np.where(cut_B, 1.0, kept_B), boxes, height, width, images_B3HW.device)
        mixed_B3HW = blend(images_B3HW, _rolled(images_B3HW), weights_BHW)
        return mixed_B3HW, targets(labels_B2, kept_B, num_classes, self.smoothing)


def _rolled(images_B3HW: Tensor) -> Tensor:
    """Return each image's neighbour; on a GPU, Tensor.roll would lose channels_last."""
    return torch.cat([images_B3HW[-1:], images_B3HW[:-1]])


def cuts(chances_B: Chances, epoch: int, mix: Mix) -> np.ndarray:
    """Return which images are cut, and not blended."""
    if not (mix.mixup > 0 and mix.cutmix > 0):
        return np.full(len(chances_B), mix.cutmix > 0)
    return chance.uniform(chances_B, epoch, "mix/cut") < mix.switch


def shares(chances_B: Chances, epoch: int, mix: Mix) -> np.ndarray:
    """Return how much of each image stays, float64 in [0, 1]; 1 for those that are not mixed."""
    from scipy.special import betaincinv  # type: ignore[import-untyped]

    quantiles_B = chance.uniform(chances_B, epoch, "mix/share")
    cut_B = cuts(chances_B, epoch, mix)
    kept_B = np.ones(len(chances_B))
    for alpha, chosen_B in ((mix.mixup, ~cut_B), (mix.cutmix, cut_B)):
        if alpha > 0:
            kept_B[chosen_B] = betaincinv(alpha, alpha, quantiles_B[chosen_B])
    return np.where(chance.uniform(chances_B, epoch, "mix/hit") < mix.fraction, kept_B, 1.0)


def patches(kept_B: np.ndarray, chances_B: Chances, epoch: int, height: int, width: int) -> Boxes:
    """Return the patch to cut out of each image, of the area that does not stay, around a pixel anywhere.

    It keeps the image's aspect, and ends at its edges, so it may be smaller.
    """
    sides = []
    for length, salt in ((height, "mix/y"), (width, "mix/x")):
        center_B = (chance.uniform(chances_B, epoch, salt) * length).astype(np.int64)
        cut_B = (np.sqrt(1 - kept_B) * length).astype(np.int64)
        sides += [(center_B - cut_B // 2).clip(0, length), (center_B + (cut_B + 1) // 2).clip(0, length)]
    return Boxes(*sides)


def weights(kept_B: np.ndarray, boxes: Boxes, height: int, width: int, device: torch.device) -> Tensor:
    """Return the weight of each pixel of the images themselves, weights_BHW: none in the boxes, `kept_B` elsewhere."""
    top, bottom, left, right = (upload(side, device)[:, None] for side in boxes)
    row_H, column_W = torch.arange(height, device=device), torch.arange(width, device=device)
    inside_BHW = ((row_H >= top) & (row_H < bottom))[:, :, None] & ((column_W >= left) & (column_W < right))[
        :, None
    ]
    kept_B11 = upload(kept_B.astype(np.float32), device)[:, None, None]
    return kept_B11 * ~inside_BHW


def blend(images_B3HW: Tensor, others_B3HW: Tensor, weights_BHW: Tensor) -> Tensor:
    """Return images mixed with others, pixel by pixel: of weight 1 is the image itself, exactly, and of 0 the other."""
    return torch.lerp(others_B3HW, images_B3HW, weights_BHW[:, None].to(images_B3HW.dtype))


def targets(labels_B2: Tensor, kept_B: np.ndarray, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Return targets_BC, float32: the first label for the share that stays, the second for the rest, then smoothed."""
    kept_B1 = upload(kept_B.astype(np.float32), labels_B2.device)[:, None]
    first_BC, second_BC = functional.one_hot(labels_B2, num_classes).float().unbind(1)
    return torch.lerp(second_BC, first_BC, kept_B1) * (1 - smoothing) + smoothing / num_classes
