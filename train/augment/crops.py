"""Random resized crops with flips, of whole batches.

Every choice follows from the sample's key, the seed and the epoch, so any process makes the same crop.
"""

# B images, R of them, D draws, S side of the stored square, T side of the result, H height, W width

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from train.augment import chance
from train.augment.chance import Chances
from train.augment.upload import upload

ASPECTS = (3 / 4, 4 / 3)  # width to height of a crop
DRAWS = 10  # of a crop, until one fits into its image


class Crops(NamedTuple):
    """One crop of each image, in shares of its width and height (float64, B), and whether to flip it."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    flip: np.ndarray  # bool


def random_crops(chances_B: Chances, epoch: int, *, min_area: float, shape: np.ndarray) -> Crops:
    """Draw a random resized crop for each image, as torchvision's `RandomResizedCrop` draws its own.

    The area is uniform in [min_area, 1], the logarithm of the aspect uniform between those of 3:4 and 4:3, and both
    come to whole pixels. A crop that does not fit into the image is drawn again, ten times in all; after that it is
    the largest in the middle whose aspect is allowed.

    Args:
        chances_B: the images' chances.
        epoch: crops differ by it.
        min_area: share of the image, in (0, 1].
        shape: width and height of each image in pixels, B2; or 2, of all.

    Source: Szegedy et al., CVPR 2015, https://arxiv.org/abs/1409.4842
    """
    shape_B2 = np.broadcast_to(shape, (len(chances_B), 2))
    sides_B2 = _sides(chances_B, epoch, min_area, shape_B2)
    fallback_B = sides_B2[:, 0] == 0
    room_B2 = shape_B2 - sides_B2  # places of the upper left corner, less one
    x, y = (chance.uniform(chances_B, epoch, salt) for salt in ("crop/x", "crop/y"))
    corner_B2 = np.floor(np.stack([x, y], axis=1) * (room_B2 + 1))
    if fallback_B.any():
        sides_B2[fallback_B] = _largest(shape_B2[fallback_B])
        corner_B2[fallback_B] = (shape_B2[fallback_B] - sides_B2[fallback_B]) // 2
    (left, top), (width, height) = (corner_B2 / shape_B2).T, (sides_B2 / shape_B2).T
    return Crops(left, top, width, height, chance.stir(chances_B, epoch, "flip") >> np.uint64(63) == 1)


def _sides(chances_B: Chances, epoch: int, min_area: float, shape_B2: np.ndarray) -> np.ndarray:
    """Return width and height of the first drawn crop that fits, in whole pixels; zeros where none does."""
    area_B, aspect_B = (chance.stir(chances_B, epoch, salt) for salt in ("crop/area", "crop/aspect"))
    low, high = np.log(ASPECTS)
    sides_B2 = np.zeros(shape_B2.shape)
    left_R = np.arange(len(shape_B2))  # rows that have no crop yet
    for draws in (range(1), range(1, DRAWS)):  # all that follow the first at once: numpy's calls cost more
        area_RD, aspect_RD = (
            chance.uniform_draws(stirred_B[left_R], draws) for stirred_B in (area_B, aspect_B)
        )
        shape_R2 = shape_B2[left_R]
        area_RD = (min_area + (1 - min_area) * area_RD) * shape_R2.prod(axis=1, keepdims=True)
        aspect_RD = np.exp(low + (high - low) * aspect_RD)
        drawn_RD2 = np.rint(np.sqrt(np.stack([area_RD * aspect_RD, area_RD / aspect_RD], axis=2)))
        fits_RD = ((drawn_RD2 > 0) & (drawn_RD2 <= shape_R2[:, None])).all(axis=2)
        first_R, found_R = fits_RD.argmax(axis=1), fits_RD.any(axis=1)
        sides_B2[left_R[found_R]] = drawn_RD2[found_R, first_R[found_R]]
        left_R = left_R[~found_R]
        if not len(left_R):
            break
    return sides_B2


def _largest(shape_B2: np.ndarray) -> np.ndarray:
    """Return width and height of the largest crop of an allowed aspect, in whole pixels."""
    width_B, height_B = shape_B2.T
    narrow, wide = ASPECTS
    return np.stack(
        [
            np.where(width_B / height_B > wide, np.rint(height_B * wide), width_B),
            np.where(width_B / height_B < narrow, np.rint(width_B / narrow), height_B),
        ],
        axis=1,
    )


def crop_batch(squares_BSSC: Tensor, crops: Crops, size: int) -> Tensor:
    """Crop and resize every image of a batch, antialiased, as two matrix products per image.

    Returns:
        images_BCTT, uint8.
    """
    side = squares_BSSC.shape[1]
    device = squares_BSSC.device
    upright = np.zeros_like(crops.flip)
    rows_BTS = _resampling(crops.top, crops.height, upright, side, size, device)
    columns_BTS = _resampling(crops.left, crops.width, crops.flip, side, size, device)
    batch = squares_BSSC.shape[0]
    pixels_BSCS = squares_BSSC.permute(0, 1, 3, 2).to(torch.float32, memory_format=torch.contiguous_format)
    tall_BTCS = torch.bmm(rows_BTS, pixels_BSCS.view(batch, side, 3 * side))
    images_BTCT = torch.bmm(tall_BTCS.view(batch, size * 3, side), columns_BTS.transpose(1, 2))
    rounded = images_BTCT.add_(0.5).clamp_(0, 255).to(torch.uint8)
    return rounded.view(batch, size, 3, size).permute(0, 2, 1, 3)


def center_batch(squares_BSSC: Tensor, size: int) -> Tensor:
    """Cut the middle out of every image: images_BCTT, uint8."""
    at = (squares_BSSC.shape[1] - size) // 2
    return squares_BSSC[:, at : at + size, at : at + size].permute(0, 3, 1, 2)


def _resampling(
    start: np.ndarray, length: np.ndarray, flip: np.ndarray, side: int, size: int, device: torch.device
) -> Tensor:
    """Return weights_BTS: each of T output pixels is a triangle over S input pixels, of sum 1."""
    start_B1, length_B1, flip_B1 = (
        upload(column_B, device)[:, None] for column_B in (start.astype("f4"), length.astype("f4"), flip)
    )
    scale_B1 = length_B1 * side / size  # input pixels an output pixel
    place_T = torch.arange(size, dtype=torch.float32, device=device) + 0.5
    center_BT = start_B1 * side + torch.where(flip_B1, size - place_T, place_T) * scale_B1
    pixel_S = torch.arange(side, dtype=torch.float32, device=device) + 0.5
    reach_B11 = scale_B1.clamp(min=1.0)[:, :, None]
    weights_BTS = (1 - (pixel_S - center_BT[:, :, None]).abs() / reach_B11).clamp_(min=0)
    return weights_BTS / weights_BTS.sum(dim=2, keepdim=True)
