"""Where to cut an image, and cutting it: a random resized crop with a flip, whole batches at a time.

Every choice follows from the sample's key, the seed and the epoch, so it does not matter who makes the cut.
"""

# B images, S side of the stored square, T side of the result, H height, W width

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from train import chances
from train.chances import Chances, Passes

ASPECTS = (3 / 4, 4 / 3)  # width to height of a crop


class Crops(NamedTuple):
    """One crop an image, in shares of its width and height (float64, B), and whether to flip it."""

    left: np.ndarray
    top: np.ndarray
    width: np.ndarray
    height: np.ndarray
    flip: np.ndarray  # bool


def random_crops(
    chances_B: Chances, passes: Passes, *, min_area: float, shape: np.ndarray | None = None
) -> Crops:
    """Draw a random resized crop for each image.

    Area and aspect are drawn as in Inception: area uniform in [min_area, 1], log aspect uniform between 3:4
    and 4:3. A crop that would stick out is cut to the image's edge, where torchvision draws again.

    Args:
        chances_B: the images' chances.
        passes: crops differ by them.
        min_area: share of the image, in (0, 1].
        shape: width and height of each image, B2; squares by default.

    Source: Szegedy et al., CVPR 2015, https://arxiv.org/abs/1409.4842
    """
    area = min_area + (1 - min_area) * chances.uniform(chances_B, passes, "crop/area")
    low, high = np.log(ASPECTS)
    aspect = np.exp(low + (high - low) * chances.uniform(chances_B, passes, "crop/aspect"))
    if shape is not None:
        aspect = aspect * shape[:, 1] / shape[:, 0]  # from pixels to shares
    width = np.minimum(np.sqrt(area * aspect), 1.0)
    height = np.minimum(np.sqrt(area / aspect), 1.0)
    left = (1 - width) * chances.uniform(chances_B, passes, "crop/x")
    top = (1 - height) * chances.uniform(chances_B, passes, "crop/y")
    return Crops(left, top, width, height, chances.stir(chances_B, passes, "flip") >> np.uint64(63) == 1)


def crop_batch(squares_BSSC: Tensor, crops: Crops, size: int) -> Tensor:
    """Cut and resize every image of a batch, antialiased, as two matrix products an image.

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
        torch.from_numpy(one).to(device, non_blocking=True)[:, None]
        for one in (start.astype("f4"), length.astype("f4"), flip)
    )
    scale_B1 = length_B1 * side / size  # input pixels an output pixel
    place_T = torch.arange(size, dtype=torch.float32, device=device) + 0.5
    center_BT = start_B1 * side + torch.where(flip_B1, size - place_T, place_T) * scale_B1
    pixel_S = torch.arange(side, dtype=torch.float32, device=device) + 0.5
    reach_B11 = scale_B1.clamp(min=1.0)[:, :, None]
    weights_BTS = (1 - (pixel_S - center_BT[:, :, None]).abs() / reach_B11).clamp_(min=0)
    return weights_BTS / weights_BTS.sum(dim=2, keepdim=True)
