"""Decode a task's images once, to uint8 tensors that every shot count, seed and protocol shares."""

# N images, S pixels of a side

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curate.images import BadImage
from train.transfer.tasks import Split, Task, check_labels, in_threads


@dataclass(frozen=True)
class Pixels:
    """The images of a split that decode.

    Args:
        keys: their names.
        labels: int64 labels_N.
        images: uint8 images_N3SS, 0..255.
    """

    keys: tuple[str, ...]
    labels: np.ndarray
    images: Tensor

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class TaskPixels:
    """A task at one image size.

    Args:
        train: less the images whose bytes are in test too.
        test: all that decode.
        notes: what was left out, counted and named.
    """

    train: Pixels
    test: Pixels
    notes: tuple[str, ...]


def pixels(task: Task, image_size: int) -> TaskPixels:
    """Decode a task: short side to `image_size` (bicubic), centre crop.

    The task keeps the result, so runs of one image size share it.

    Raises:
        DataError: an image cannot be read, or no image of a class is left on one side.
    """
    kept: dict[int, TaskPixels] = task.__dict__.setdefault("_pixels", {})
    if image_size not in kept:
        train, train_notes = _decode(task, "train", task.train, image_size, left_out=task.leaked)
        test, test_notes = _decode(task, "test", task.test, image_size, left_out=())
        notes = [*task.notes, *train_notes, *test_notes]
        if task.leaked:
            first = task.train.keys[min(task.leaked)]
            notes.append(
                f"train: {len(task.leaked)} images left out, identical to test images (such as {first})"
            )
        kept[image_size] = TaskPixels(train, test, tuple(notes))
    return kept[image_size]


def _decode(
    task: Task, side: str, split: Split, size: int, *, left_out: Iterable[int]
) -> tuple[Pixels, list[str]]:
    rows = sorted(set(range(len(split))) - set(left_out))
    images_N3SS = torch.empty(len(rows), 3, size, size, dtype=torch.uint8)

    def one(position: int) -> str | None:
        """Decode into place and return what is wrong with the image, or None."""
        try:
            images_N3SS[position] = square(split.images.decode(rows[position]), size)
        except BadImage as error:
            return str(error)
        return None

    reasons = list(in_threads(one, len(rows)))
    good = [position for position, reason in enumerate(reasons) if reason is None]
    notes = []
    if len(good) < len(rows):
        images_N3SS = images_N3SS[good]
        bad = [f"{split.keys[rows[i]]}: {reason}" for i, reason in enumerate(reasons) if reason is not None]
        notes.append(f"{side}: {len(bad)} images left out, which do not decode ({'; '.join(bad[:3])})")
    labels = [split.labels[rows[i]] for i in good]
    check_labels(f"{task.name}, {side} (of the images that can be used)", labels, task.classes)
    keys = tuple(split.keys[rows[i]] for i in good)
    return Pixels(keys, np.array(labels, dtype=np.int64), images_N3SS), notes


def square(image, size: int) -> Tensor:  # image: PIL.Image.Image
    """Return an image as uint8 [3, size, size]: short side to `size` (bicubic), centre crop."""
    from PIL import Image

    short = min(image.size)
    width, height = (size * side // short for side in image.size)  # rounded as torchvision does
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    cropped = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)
