"""Splits made here, for tasks that need no file, and a network of the tests' own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from train.models.registry import Model
from train.runs import ScratchRun
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


class StridedRun(ScratchRun):
    """Random weights of a network that is made here, so that what its features can tell does not change."""

    WIDTHS = (32, 64, 128)

    def model(
        self, device: str | torch.device = "cpu", *, num_classes: int | None = None, seed: int = 0
    ) -> Model:
        """Return three strided convolutions with batch norm, averaged over the image."""
        layers: list[nn.Module] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for inputs, width in zip((3, *self.WIDTHS), self.WIDTHS, strict=False):
                stride = 1 if inputs == 3 else 2
                layers += [
                    nn.Conv2d(inputs, width, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            head: Any = nn.Linear(self.WIDTHS[-1], num_classes) if num_classes else nn.Identity()
        backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return Model(backbone, head, self.WIDTHS[-1], self.spec).to(device).eval()
