"""View pipelines: from the bytes of images to the pixels that a model sees.

The source of the crops depends on the dataset and on the size of the model's images, never on the memory of the
machine. So a set that fits into memory and one that does not are cropped alike, and can be compared.

- `CenterSquares` crops from the middle square of each image, shrunk to 8/7 of the image size. Squares can be cached;
  torch crops whole batches at once, on the model's device.
- `FullImages` crops from the whole image, in the worker that decodes it, as most published trainings do.

The views of an image are independent random crops of it; the image is decoded once for all of them.
"""

# B images, V views of each, H height, W width, S side of a square, T side of the result

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import require, require_one_of
from curate.io.image_headers import BadImage, Header
from train.augment.chance import Chances, of_view
from train.augment.crops import Crops, center_batch, crop_batch, random_crops
from train.augment.decode import header_of, pixels, pixels_into

CropFrom = Literal["auto", "square", "photo"]

SMALL = 96  # px; above it, "auto" takes the whole image: a square of 8/7 would lose too much of a photograph
MARGIN = 8 / 7  # 256 for 224: what is kept around the middle crop


class ViewPipeline(Protocol):
    """How images of one size are made.

    Attributes:
        image_size: T, in pixels.
        shape: of what a worker makes of one image.
    """

    image_size: int
    shape: tuple[int, ...]

    def fill(
        self, made_B: np.ndarray, data: Sequence[bytes], chances_B: Chances, epoch: int
    ) -> dict[int, str]:
        """Decode images into `made_B`; return the reason of each that cannot be decoded, by its place."""

    def finish(self, made_B: Tensor, chances_B: Chances, epoch: int) -> tuple[Tensor, ...]:
        """Return V views of a batch, each images_B3TT, uint8, on the device of `made_B`."""


class CenterSquares:
    """Crops of the middle square of each image.

    Args:
        image_size: T, in pixels.
        augment: a random resized crop and flip; else the middle.
        min_area: smallest share of the square that a random crop may take.
        largest: the longest short side in the dataset: squares are not made larger than any image is.
        views: V, crops of each image.
    """

    def __init__(
        self, image_size: int, augment: bool, min_area: float, largest: int | None = None, views: int = 1
    ) -> None:
        self.image_size = image_size
        self.augment = augment
        self.min_area = min_area
        self.views = views
        self.side = max(image_size, min(round(image_size * MARGIN), largest or 1 << 30))
        self.shape: tuple[int, ...] = (self.side, self.side, 3)

    def fill(
        self, images_BSS3: np.ndarray, data: Sequence[bytes], chances_B: Chances, epoch: int
    ) -> dict[int, str]:
        """Decode the middle square of each image."""
        unreadable = {}
        for i, image_bytes in enumerate(data):
            image_SS3 = images_BSS3[i]
            if image_bytes[:2] == b"\xff\xd8" and pixels_into(image_bytes, image_SS3):
                continue  # it has the square's size already
            try:
                header = header_of(image_bytes)
                image_HW3 = pixels(image_bytes, header, min(header.width, header.height) / self.side)
                height, width, _ = image_HW3.shape
                edge = min(height, width)
                top, left = (height - edge) // 2, (width - edge) // 2
                image_SS3[:] = _resized(image_HW3[top : top + edge, left : left + edge], self.side)
            except BadImage as error:
                unreadable[i] = str(error)
        return unreadable

    def finish(self, images_BSS3: Tensor, chances_B: Chances, epoch: int) -> tuple[Tensor, ...]:
        """Crop every square of the batch."""
        if not self.augment:
            return (center_batch(images_BSS3, self.image_size),)
        return tuple(
            crop_batch(images_BSS3, crops, self.image_size)
            for crops in _random_crops(self.views, chances_B, epoch, self.min_area, np.array(self.shape[:2]))
        )


class FullImages:
    """Crops of the whole image, made by the worker; arguments as for `CenterSquares`."""

    def __init__(self, image_size: int, augment: bool, min_area: float, views: int = 1) -> None:
        self.image_size = image_size
        self.augment = augment
        self.min_area = min_area
        self.views = views
        self.shape: tuple[int, ...] = (views, image_size, image_size, 3)

    def fill(
        self, images_BVTT3: np.ndarray, data: Sequence[bytes], chances_B: Chances, epoch: int
    ) -> dict[int, str]:
        """Decode, crop, resize and flip images; each is decoded no larger than its crops need."""
        headers: list[Header | None] = []
        unreadable = {}
        for i, image_bytes in enumerate(data):
            try:
                headers.append(header_of(image_bytes))
            except BadImage as error:
                unreadable[i] = str(error)
                headers.append(None)
        shape_B2 = np.array([(h.width, h.height) if h else (1, 1) for h in headers])
        # For each image, so many crops: left, top, width, height, flip.
        crops = zip(
            *(zip(*view, strict=True) for view in self._crops(shape_B2, chances_B, epoch)), strict=True
        )
        for i, (image_bytes, header, views) in enumerate(zip(data, headers, crops, strict=True)):
            if header is None:
                continue
            try:
                smallest = min(min(w * header.width, h * header.height) for _, _, w, h, _ in views)
                image_HW3 = pixels(image_bytes, header, smallest / self.image_size)
            except BadImage as error:
                unreadable[i] = str(error)
                continue
            for v, (left, top, width, height, flip) in enumerate(views):
                rows, columns = _span(top, height, image_HW3.shape[0]), _span(left, width, image_HW3.shape[1])
                images_BVTT3[i, v] = _resized(image_HW3[rows, columns], self.image_size, flip)
        return unreadable

    def finish(self, images_BVTT3: Tensor, chances_B: Chances, epoch: int) -> tuple[Tensor, ...]:
        """Turn BVTT3 into V of B3TT."""
        return images_BVTT3.permute(1, 0, 4, 2, 3).unbind()

    def _crops(self, shape_B2: np.ndarray, chances_B: Chances, epoch: int) -> list[Crops]:
        if self.augment:
            return _random_crops(self.views, chances_B, epoch, self.min_area, shape_B2)
        width_B, height_B = (shape_B2.min(axis=1, keepdims=True) / shape_B2 / MARGIN).T
        left_B, top_B = (1 - width_B) / 2, (1 - height_B) / 2
        return [Crops(left_B, top_B, width_B, height_B, np.zeros(len(shape_B2), bool))]


def _random_crops(
    views: int, chances_B: Chances, epoch: int, min_area: float, shape: np.ndarray
) -> list[Crops]:
    return [
        random_crops(of_view(chances_B, view), epoch, min_area=min_area, shape=shape) for view in range(views)
    ]


def _span(start: float, length: float, pixels: int) -> slice:
    """Return the whole pixels that a share of a side comes to, one at least."""
    first = min(round(start * pixels), pixels - 1)
    return slice(first, max(first + 1, round((start + length) * pixels)))


def _resized(image_HW3: np.ndarray, side: int, flip: bool = False) -> np.ndarray:
    """Resize an image to a square, bilinear and antialiased, and mirror it if `flip`.

    Pillow takes twice as long, and so does torch without channels_last, which the strides of one image do not show.
    """
    image_13HW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None]
    if image_HW3.shape != (side, side, 3):
        image_13HW = image_13HW.contiguous(memory_format=torch.channels_last)
        image_13HW = functional.interpolate(image_13HW, (side, side), mode="bilinear", antialias=True)
    if flip:
        image_13HW = image_13HW.flip(3)
    return image_13HW[0].permute(1, 2, 0).numpy()


def view_pipeline(
    image_size: int,
    *,
    augment: bool,
    min_area: float,
    crop_from: CropFrom = "auto",
    largest: int | None = None,
    views: int = 1,
) -> ViewPipeline:
    """Return the pipeline for images of a size; arguments as for `CenterSquares`.

    Raises:
        RecipeError: options that cannot be meant.
    """
    require(image_size >= 1, "image_size", image_size, "1 or more")
    require(0 < min_area <= 1, "min_area", min_area, "a share, in (0, 1]")
    require(views == 1 or (augment and views >= 1), "views", views, "1 or more, and 1 without augmentation")
    require_one_of(CropFrom, "crop_from", crop_from)
    if crop_from == "square" or (crop_from == "auto" and image_size <= SMALL):
        return CenterSquares(image_size, augment, min_area, largest, views)
    return FullImages(image_size, augment, min_area, views)
