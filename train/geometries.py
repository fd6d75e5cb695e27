"""From bytes to the pixels that a model sees, in two steps: decode (keeps) and cut (differs by epoch).

What is done depends on the size of the model's images alone, never on how much memory there is: a set that
fits into memory and one that does not are cut the same way, so they can be compared.

- `Squares`, up to 96 px: the middle square, shrunk to 8/7 of the image size. Whole batches are cut at once,
  by torch, where the model is.
- `Photos`, above: the whole image, at the scale where a JPEG decodes fastest. Pillow cuts each, in a worker.
"""

# B images, S side of a stored square, T side of the result

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from curate.images import decode
from train import augmentations
from train.chances import Chances

SMALL = 96  # px; above it, a square of 8/7 would lose too much of a photograph
MARGIN = 8 / 7  # 256 for 224: what is kept around the middle crop
BILINEAR = Image.Resampling.BILINEAR
UNKNOWN = 500 * 375  # pixels of an image whose manifest does not say; ImageNet's usual size


class Geometry(Protocol):
    """How images of one size are kept and cut."""

    def decode(self, data: bytes) -> Any:
        """Return what is kept of an image; raises BadImage."""

    def cut(self, kept: Sequence[Any], chances_B: Chances, epoch: int) -> np.ndarray:
        """Do the worker's part for some images: uint8, B.., to be concatenated."""

    def finish(self, pixels: Tensor, chances_B: Chances, epoch: int) -> Tensor:
        """Do the batch's part where the model is: images_B3TT, uint8."""

    def kept_bytes(self, pixels_N: np.ndarray) -> int:
        """Return the memory that all images would take, given their width times height (0: unknown)."""


class Squares:
    """The middle square, kept at 8/7 of the image size; see the module.

    Args:
        image_size: T, in pixels.
        augment: a random resized crop and flip; else the middle.
        min_area: smallest share of the square that a random crop may take.
    """

    def __init__(self, image_size: int, augment: bool, min_area: float) -> None:
        self.image_size = image_size
        self.augment = augment
        self.min_area = min_area
        self.side = round(image_size * MARGIN)

    def decode(self, data: bytes) -> np.ndarray:
        """Return an image's middle square, SS3."""
        image = decode(data, at_least=self.side)
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        box = (left, top, left + edge, top + edge)
        return np.asarray(image.resize((self.side, self.side), BILINEAR, box=box, reducing_gap=2.0))

    def cut(self, kept: Sequence[np.ndarray], chances_B: Chances, epoch: int) -> np.ndarray:
        """Leave the squares as they are: BSS3."""
        return np.stack(kept)

    def finish(self, pixels: Tensor, chances_B: Chances, epoch: int) -> Tensor:
        """Cut every square of the batch."""
        if not self.augment:
            return augmentations.center_batch(pixels, self.image_size)
        crops = augmentations.random_crops(chances_B, epoch, min_area=self.min_area)
        return augmentations.crop_batch(pixels, crops, self.image_size)

    def kept_bytes(self, pixels_N: np.ndarray) -> int:
        """Every square takes the same."""
        return len(pixels_N) * self.side**2 * 3


class Photos:
    """The whole image, decoded at the smallest scale that is enough; arguments as for `Squares`."""

    def __init__(self, image_size: int, augment: bool, min_area: float) -> None:
        self.image_size = image_size
        self.augment = augment
        self.min_area = min_area
        self.short = round(image_size * MARGIN)

    def decode(self, data: bytes) -> Image.Image:
        """Return the image, with a short side of at least 8/7 of the image size if it had so much."""
        return decode(data, at_least=self.short)

    def cut(self, kept: Sequence[Image.Image], chances_B: Chances, epoch: int) -> np.ndarray:
        """Crop, resize and flip each image: BTT3."""
        return np.stack(
            [
                np.asarray(image)
                for image in (self._random if self.augment else self._middle)(kept, chances_B, epoch)
            ]
        )

    def finish(self, pixels: Tensor, chances_B: Chances, epoch: int) -> Tensor:
        """Turn BTT3 into B3TT."""
        return pixels.permute(0, 3, 1, 2)

    def kept_bytes(self, pixels_N: np.ndarray) -> int:
        """Decoded at full size, at the worst."""
        return int(np.where(pixels_N > 0, pixels_N, UNKNOWN).sum()) * 3

    def _random(self, kept: Sequence[Image.Image], chances_B: Chances, epoch: int) -> list[Image.Image]:
        shape = np.array([image.size for image in kept])
        crops = augmentations.random_crops(chances_B, epoch, min_area=self.min_area, shape=shape)
        cut = []
        for image, left, top, width, height, flip in zip(kept, *crops, strict=True):
            x, y = left * image.width, top * image.height
            result = self._resize(image, (x, y, x + width * image.width, y + height * image.height))
            cut.append(result.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else result)
        return cut

    def _middle(self, kept: Sequence[Image.Image], chances_B: Chances, epoch: int) -> list[Image.Image]:
        cut = []
        for image in kept:
            edge = min(image.size) * self.image_size / self.short
            x, y = (image.width - edge) / 2, (image.height - edge) / 2
            cut.append(self._resize(image, (x, y, x + edge, y + edge)))
        return cut

    def _resize(self, image: Image.Image, box: tuple[float, float, float, float]) -> Image.Image:
        right, bottom = min(box[2], image.width), min(box[3], image.height)  # past the edge by rounding
        size = (self.image_size, self.image_size)
        return image.resize(size, BILINEAR, box=(box[0], box[1], right, bottom), reducing_gap=2.0)


def geometry(image_size: int, *, augment: bool, min_area: float) -> Geometry:
    """Return how images of a size are kept and cut."""
    kind = Squares if image_size <= SMALL else Photos
    return kind(image_size, augment, min_area)
