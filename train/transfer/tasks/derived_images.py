"""Images that are made of others: some of them, several places as one, a person and what is around."""

# N images

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.io.image_headers import BadImage
from curate.rows.manifest import digest
from train.transfer.splits import ImageSource, fingerprint_of


@dataclass(frozen=True)
class ImageSubset:
    """Some of other images, or all of them in another order.

    Args:
        images: the others.
        rows: which of them.
    """

    images: ImageSource
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> bytes:
        """Return an image as stored."""
        return self.images.read(self.rows[index])

    def decode(self, index: int) -> Any:
        """Return an image in RGB; raises BadImage."""
        return self.images.decode(self.rows[index])


@dataclass(frozen=True)
class ConcatenatedImages:
    """The images of several places, one after another."""

    parts: tuple[ImageSource, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def read(self, index: int) -> bytes:
        """Return an image as stored."""
        part, row = self._find(index)
        return part.read(row)

    def decode(self, index: int) -> Any:
        """Return an image in RGB; raises BadImage."""
        part, row = self._find(index)
        return part.decode(row)

    def fingerprint(self) -> str | None:
        """Name the files of all parts; None where one part does not say."""
        fingerprints = [fingerprint_of(part) for part in self.parts]
        return None if None in fingerprints else digest(["joined", fingerprints])

    def _find(self, index: int) -> tuple[ImageSource, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)


@dataclass(frozen=True)
class BoxCrops:
    """Boxes, cut out of images with some of their surroundings.

    A box grows about its centre. What would lie outside the image is left off, not filled in: at a border a crop
    has less context, and another centre and shape.

    Args:
        images: that they are cut from.
        rows: the image of each of N.
        boxes: xmin, ymin, xmax, ymax of each, in pixels from the upper left corner.
        context: how many times as wide and as high as its box a crop is; 1 is the box alone.
    """

    images: ImageSource
    rows: Sequence[int]
    boxes: Sequence[tuple[float, float, float, float]]
    context: float = 1.5

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> bytes:
        """Return the image as stored, and the box: two crops are the same when both are."""
        box = " ".join(f"{corner:g}" for corner in self.boxes[index])
        return self.images.read(self.rows[index]) + f" box {box} x {self.context:g}".encode()

    def fingerprint(self) -> str | None:
        """Name the files and the boxes; None where the images do not say."""
        fingerprint = fingerprint_of(self.images)
        if fingerprint is None:
            return None
        return digest(["crops", fingerprint, [*self.rows], [*map(list, self.boxes)], self.context])

    def decode(self, index: int) -> Any:
        """Return a crop in RGB; raises BadImage."""
        image = self.images.decode(self.rows[index])
        edges = enlarge_box(self.boxes[index], self.context, image.size)
        if edges[2] <= edges[0] or edges[3] <= edges[1]:
            width, height = image.size
            raise BadImage(f"box {self.boxes[index]} is outside the image of {width} x {height} pixels")
        return image.crop(edges)


def enlarge_box(
    box: tuple[float, float, float, float], context: float, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return a box `context` times as wide and high about its centre, whole pixels, within an image."""
    (xmin, ymin, xmax, ymax), (width, height) = box, size
    x, y = (context - 1) / 2 * (xmax - xmin), (context - 1) / 2 * (ymax - ymin)
    low = max(0, math.floor(xmin - x)), max(0, math.floor(ymin - y))
    return *low, min(width, math.ceil(xmax + x)), min(height, math.ceil(ymax + y))
