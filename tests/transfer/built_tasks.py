"""Splits made here, for tasks that need no file."""

from __future__ import annotations

import numpy as np

from train.transfer import Arrays, Split

SIDE = 16  # pixels


def make_split(pixels: np.ndarray, labels: list[int], prefix: str) -> Split:
    """Return images in memory as a split; keys are the prefix and a number."""
    return Split(tuple(f"{prefix}{i}" for i in range(len(labels))), tuple(labels), Arrays(pixels))


def dots(per_class: int, seed: int, prefix: str) -> Split:
    """Return noise with a red dot and a green one; the class is the side of the red one that the green is on."""
    generator = np.random.default_rng(seed)
    sides = [(0, 3), (3, 0), (0, -3), (-3, 0)]
    labels = [label for label in range(4) for _ in range(per_class)]
    pixels = generator.integers(0, 60, (len(labels), SIDE, SIDE, 3)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        row, column = generator.integers(4, SIDE - 6, 2)
        down, right = sides[label]
        image[row : row + 2, column : column + 2] = (255, 0, 0)
        image[row + down : row + down + 2, column + right : column + right + 2] = (0, 255, 0)
    return make_split(pixels, labels, prefix)
