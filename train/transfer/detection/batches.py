"""Images with their boxes, loaded by threads and ready for a detector."""

# B images, M objects of an image, N proposals of an image, H height, W width

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from curate.errors import DataError
from curate.io.executors import cores, in_order
from curate.io.image_headers import BadImage
from train.transfer.detection.task import DetectionSplit

Target = dict[str, Tensor]


@dataclass(frozen=True)
class DetectionBatch:
    """Images of several sizes.

    Args:
        keys: their names.
        images: float32 image_3HW each, 0..1.
        targets: boxes_M4, labels_M from 1 (0 is background), and proposals_N4 where there are some.
    """

    keys: tuple[str, ...]
    images: list[Tensor]
    targets: list[Target]


@dataclass(frozen=True)
class DetectionLoader:
    """Where batches come from.

    Args:
        split: the images.
        difficult: whether difficult objects are among the boxes.
        proposals: boxes_N4 of each image by its key, or None.
    """

    split: DetectionSplit
    difficult: bool = True
    proposals: Mapping[str, np.ndarray] | None = None

    def batches(
        self, rows: Iterable[tuple[list[int], list[bool]]], device: torch.device
    ) -> Iterator[DetectionBatch]:
        """Give batches of some rows of the split, each mirrored or not.

        Raises:
            DataError: an image does not decode, or is not of the size that its annotation says.
        """
        tasks = (partial(self._load, each, mirrored) for each, mirrored in rows)
        workers = min(16, cores())
        for keys, images, targets in in_order(tasks, workers, ahead=2 * workers):
            floats = [image.to(device, non_blocking=True).float().div_(255) for image in images]
            placed = [{name: value.to(device) for name, value in target.items()} for target in targets]
            yield DetectionBatch(keys, floats, placed)

    def _load(
        self, rows: list[int], mirrored: list[bool]
    ) -> tuple[tuple[str, ...], list[Tensor], list[Target]]:
        loaded = [self._one(row, flip) for row, flip in zip(rows, mirrored, strict=True)]
        keys = tuple(self.split.keys[row] for row in rows)
        return keys, [image for image, _ in loaded], [target for _, target in loaded]

    def _one(self, row: int, mirrored: bool) -> tuple[Tensor, Target]:
        key, truth = self.split.keys[row], self.split.truths[row]
        try:
            image = self.split.images.decode(row)
        except BadImage as error:
            raise DataError(
                f"image {key} does not decode ({error})", hint="unpack the archive again"
            ) from error
        if image.size != (truth.width, truth.height):
            raise DataError(
                f"image {key} is of {image.size[0]} x {image.size[1]} pixels, and its annotation says "
                f"{truth.width} x {truth.height}",
                hint="boxes would be in the wrong places; is the annotation of another version?",
            )
        pixels_3HW = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        kept_M = np.ones(len(truth), dtype=bool) if self.difficult else ~truth.difficult
        target = {
            "boxes": torch.from_numpy(truth.boxes[kept_M]).float(),
            "labels": torch.from_numpy(truth.labels[kept_M]) + 1,
        }
        if self.proposals is not None:
            target["proposals"] = torch.from_numpy(self.proposals[key]).float()
        if mirrored:
            pixels_3HW = pixels_3HW.flip(2)
            for name in ("boxes", "proposals"):
                if name in target:
                    target[name] = flip_boxes(target[name], truth.width)
        return pixels_3HW, target


def flip_boxes(boxes_N4: Tensor, width: int) -> Tensor:
    """Return boxes in the mirror image."""
    flipped_N4 = boxes_N4.clone()
    flipped_N4[:, 0], flipped_N4[:, 2] = width - boxes_N4[:, 2], width - boxes_N4[:, 0]
    return flipped_N4


def sequential_batches(count: int, size: int) -> Iterator[tuple[list[int], list[bool]]]:
    """Give all rows once, in order, none mirrored."""
    for start in range(0, count, size):
        rows = list(range(start, min(start + size, count)))
        yield rows, [False] * len(rows)


def shuffled_batches(
    rows: np.ndarray, size: int, steps: int, generator: torch.Generator, *, flip: bool
) -> Iterator[tuple[list[int], list[bool]]]:
    """Give `steps` batches of one size from shuffles of the rows, one after another; half of them mirrored."""
    waiting: list[int] = []
    for _ in range(steps):
        while len(waiting) < size:
            waiting += rows[torch.randperm(len(rows), generator=generator).numpy()].tolist()
        batch, waiting = waiting[:size], waiting[size:]
        chance_B = torch.rand(size, generator=generator)
        yield batch, (chance_B < (0.5 if flip else 0.0)).tolist()
