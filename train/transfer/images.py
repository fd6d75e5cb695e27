"""A task's images as squares of one size: decoded once and kept in memory if they fit, else decoded each time."""

# N images, B of a batch, S pixels of a side

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from curate.errors import DataError
from curate.io.executors import cores, in_order
from curate.io.image_headers import BadImage
from train.augment.upload import upload
from train.transfer.splits import ImageSource, Split, in_threads
from train.transfer.tasks.task import Task, check_labels

ResizeMode = Literal["crop", "squash"]
MEMORY_SHARE = 0.25  # of the machine's memory, and of the device's, that the images of a task may take


@dataclass(frozen=True)
class SquareView:
    """How an image becomes a square.

    Args:
        side: S, in pixels.
        fit: "crop" resizes the short side to S (bicubic) and takes the middle; "squash" resizes both sides.
    """

    side: int
    fit: ResizeMode = "crop"


class SquareImages(Protocol):
    """uint8 squares, 0..255."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return images_B3SS of some rows on a device."""

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Yield all, in order, as images_B3SS on a device."""


@dataclass(frozen=True)
class StoredImages:
    """Squares in memory, and on the device where they fit there too.

    Args:
        images: uint8 images_N3SS.
    """

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def _placed(self) -> dict[torch.device, Tensor]:
        return {}

    def on(self, device: torch.device) -> Tensor:
        """Return them on a device, where they stay if they fit into a part of its memory."""
        if device.type != "cuda":
            return self.images.to(device)
        if device not in self._placed:
            free, total = torch.cuda.mem_get_info(device)
            fits = self.images.nbytes < MEMORY_SHARE * free and free - self.images.nbytes > total / 2
            self._placed[device] = self.images.to(device) if fits else self.images
        return self._placed[device]

    def take(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return images_B3SS of some rows on a device."""
        images_N3SS = self.on(device)
        return upload(images_N3SS[upload(rows, images_N3SS.device)], device)

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Yield all, in order, as images_B3SS on a device."""
        for images_B3SS in self.on(device).split(size):
            yield upload(images_B3SS, device)


@dataclass(frozen=True)
class StreamedImages:
    """Squares that threads decode each time, because all of them do not fit into memory.

    Args:
        images: their source.
        rows: positions in it.
        view: how an image becomes a square.
        keys: of the images, as many as rows.
    """

    images: ImageSource
    rows: np.ndarray
    view: SquareView
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return images_B3SS of some rows on a device.

        Raises:
            DataError: one does not decode.
        """
        return upload(torch.stack(list(self._decoded(rows))), device)

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Yield all, in order, as images_B3SS on a device.

        Raises:
            DataError: one does not decode.
        """
        batch: list[Tensor] = []
        for square in self._decoded(np.arange(len(self))):
            batch.append(square)
            if len(batch) == size:
                yield upload(torch.stack(batch), device)
                batch = []
        if batch:
            yield upload(torch.stack(batch), device)

    def _decoded(self, rows: np.ndarray) -> Iterator[Tensor]:
        tasks = (partial(self._decode, int(row)) for row in rows)
        workers = cores()
        yield from in_order(tasks, workers, ahead=64 * workers)

    def _decode(self, row: int) -> Tensor:
        try:
            return square(self.images.decode(int(self.rows[row])), self.view)
        except BadImage as error:
            raise DataError(
                f"image {self.keys[row]} does not decode ({error})",
                hint="take it out: images of a task that does not fit into memory must all decode",
            ) from error


@dataclass(frozen=True)
class LabeledImages:
    """The images of a split that can be used, with their labels.

    Args:
        keys: of the images.
        targets: int64 targets_N, or int8 targets_NC.
        squares: as many.
        accepted: bool accepted_NC, where there was a second look at the labels.
    """

    keys: tuple[str, ...]
    targets: np.ndarray
    squares: SquareImages
    accepted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class TaskImages:
    """A task at one view.

    Args:
        train: less the images whose bytes are in test too.
        test: all that decode.
        notes: what was left out, counted and named.
    """

    train: LabeledImages
    test: LabeledImages
    notes: tuple[str, ...]


def load_images(task: Task, view: SquareView) -> TaskImages:
    """Decode a task; or prepare to decode it each time, where it does not fit into a quarter of the memory.

    The task keeps the result, so that runs of one image size share it. The least recently used are dropped when all
    results together take more than half of the memory.

    Raises:
        DataError: an image cannot be read, or no image of a class is left on one side.
    """
    cached: dict[SquareView, TaskImages] = task.__dict__.setdefault("_images", {})
    if view not in cached:
        load = _store if count_bytes(task, view) <= MEMORY_SHARE * _memory() else _stream
        train, train_notes = load(task, "train", task.train, view, task.leaked)
        test, test_notes = load(task, "test", task.test, view, frozenset())
        cached[view] = TaskImages(train, test, (*task.notes, *train_notes, *test_notes, *task.leak_notes))
    images = cached[view]
    _mark_used(task, view, 0 if isinstance(images.train.squares, StreamedImages) else count_bytes(task, view))
    return images


# The views in memory and their bytes, the last used last.
_in_memory: dict[tuple[int, SquareView], tuple[weakref.ref[Task], int]] = {}


def count_bytes(task: Task, view: SquareView) -> int:
    """Return the bytes of a task's images at a view."""
    return (len(task.train) + len(task.test)) * 3 * view.side**2


def _mark_used(task: Task, view: SquareView, size: int) -> None:
    """Note that a view of a task was used, and drop the least recently used where memory is short."""
    _in_memory.pop((id(task), view), None)
    _in_memory[id(task), view] = (weakref.ref(task), size)
    for key in [key for key, (other, _) in _in_memory.items() if other() is None]:
        del _in_memory[key]
    for key, (other, _) in list(_in_memory.items())[:-1]:
        if sum(size for _, size in _in_memory.values()) <= 2 * MEMORY_SHARE * _memory():
            break
        oldest = other()
        assert oldest is not None
        oldest.__dict__["_images"].pop(key[1], None)
        del _in_memory[key]


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _usable_rows(split: Split, left_out: Iterable[int]) -> np.ndarray:
    return np.array(sorted(set(range(len(split))) - set(left_out)), dtype=np.int64)


def _stream(
    task: Task, side: str, split: Split, view: SquareView, left_out: Iterable[int]
) -> tuple[LabeledImages, list[str]]:
    rows = _usable_rows(split, left_out)
    keys = tuple(split.keys[i] for i in rows.tolist())
    return _labeled(task, side, split, rows, StreamedImages(split.images, rows, view, keys)), []


def _store(
    task: Task, side: str, split: Split, view: SquareView, left_out: Iterable[int]
) -> tuple[LabeledImages, list[str]]:
    rows = _usable_rows(split, left_out)
    images_N3SS = torch.empty(len(rows), 3, view.side, view.side, dtype=torch.uint8)

    def decode(position: int) -> str | None:
        """Decode into place and return what is wrong with the image, or None."""
        try:
            images_N3SS[position] = square(split.images.decode(int(rows[position])), view)
        except BadImage as error:
            return str(error)
        return None

    reasons = list(in_threads(decode, len(rows)))
    good = [position for position, reason in enumerate(reasons) if reason is None]
    notes = []
    if len(good) < len(rows):
        images_N3SS = images_N3SS[good]
        bad = [f"{split.keys[rows[i]]}: {reason}" for i, reason in enumerate(reasons) if reason is not None]
        notes.append(f"{side}: {len(bad)} images left out, which do not decode ({'; '.join(bad[:3])})")
    return _labeled(task, side, split, rows[good], StoredImages(images_N3SS)), notes


def _labeled(task: Task, side: str, split: Split, rows: np.ndarray, squares: SquareImages) -> LabeledImages:
    targets = split.targets[rows]
    check_labels(f"{task.name}, {side} (of the images that can be used)", targets, task.classes)
    accepted = None if split.accepted is None else split.accepted[rows]
    return LabeledImages(tuple(split.keys[i] for i in rows.tolist()), targets, squares, accepted)


def square(image, view: SquareView) -> Tensor:  # image: PIL.Image.Image
    """Return an image as uint8 [3, side, side]."""
    from PIL import Image

    size, short = view.side, min(image.size)
    if view.fit == "squash":
        squashed = image.resize((size, size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1)
    width, height = (size * side // short for side in image.size)  # rounded as torchvision does
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    cropped = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)
