"""A task's images as squares of one size: decoded once and kept where they fit, else read again each time."""

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
from train.transfer.splits import Images, Split, in_threads
from train.transfer.tasks.task import Task, check_labels

Fit = Literal["crop", "squash"]
KEPT_SHARE = 0.25  # of the memory, here and on the device, that the images of a task may take


@dataclass(frozen=True)
class View:
    """How an image becomes a square.

    Args:
        side: S, in pixels.
        fit: "crop" resizes the short side to S (bicubic) and takes the middle; "squash" resizes both sides.
    """

    side: int
    fit: Fit = "crop"


class Squares(Protocol):
    """uint8 squares, 0..255."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return images_B3SS of some rows on a device."""

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Give all, in order, as images_B3SS on a device."""


@dataclass(frozen=True)
class Stored:
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
            fits = self.images.nbytes < KEPT_SHARE * free and free - self.images.nbytes > total / 2
            self._placed[device] = self.images.to(device) if fits else self.images
        return self._placed[device]

    def take(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """Return images_B3SS of some rows on a device."""
        held = self.on(device)
        return upload(held[upload(rows, held.device)], device)

    def batches(self, size: int, device: torch.device) -> Iterator[Tensor]:
        """Give all, in order, as images_B3SS on a device."""
        for images_B3SS in self.on(device).split(size):
            yield upload(images_B3SS, device)


@dataclass(frozen=True)
class Streamed:
    """Squares that are decoded each time, by threads, because all of them do not fit.

    Args:
        images: where they come from.
        rows: which of them.
        view: how they become squares.
        keys: their names, as many as rows.
    """

    images: Images
    rows: np.ndarray
    view: View
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
        """Give all, in order, as images_B3SS on a device.

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
        tasks = (partial(self._one, int(row)) for row in rows)
        workers = cores()
        yield from in_order(tasks, workers, ahead=64 * workers)

    def _one(self, row: int) -> Tensor:
        try:
            return square(self.images.decode(int(self.rows[row])), self.view)
        except BadImage as error:
            raise DataError(
                f"image {self.keys[row]} does not decode ({error})",
                hint="take it out: images of a task that does not fit into memory must all decode",
            ) from error


@dataclass(frozen=True)
class Pixels:
    """The images of a split that can be used.

    Args:
        keys: their names.
        targets: int64 targets_N, or int8 targets_NC.
        squares: as many.
        accepted: bool accepted_NC, where there was a second look at the labels.
    """

    keys: tuple[str, ...]
    targets: np.ndarray
    squares: Squares
    accepted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class TaskPixels:
    """A task at one view.

    Args:
        train: less the images whose bytes are in test too.
        test: all that decode.
        notes: what was left out, counted and named.
    """

    train: Pixels
    test: Pixels
    notes: tuple[str, ...]


def pixels(task: Task, view: View) -> TaskPixels:
    """Decode a task, or say how it is to be decoded where it does not fit into a quarter of the memory.

    The task keeps the result, so runs of one image size share it; those used longest ago are forgotten when all that
    is kept takes more than half of the memory.

    Raises:
        DataError: an image cannot be read, or no image of a class is left on one side.
    """
    kept: dict[View, TaskPixels] = task.__dict__.setdefault("_pixels", {})
    if view not in kept:
        decode = _store if count_bytes(task, view) <= KEPT_SHARE * _memory() else _stream
        train, train_notes = decode(task, "train", task.train, view, task.leaked)
        test, test_notes = decode(task, "test", task.test, view, frozenset())
        notes = [*task.notes, *train_notes, *test_notes]
        if task.leaked:
            first = task.train.keys[min(task.leaked)]
            notes.append(
                f"train: {len(task.leaked)} images left out, identical to test images (such as {first})"
            )
        kept[view] = TaskPixels(train, test, tuple(notes))
    found = kept[view]
    _use(task, view, 0 if isinstance(found.train.squares, Streamed) else count_bytes(task, view))
    return found


_shelf: dict[
    tuple[int, View], tuple[weakref.ref[Task], int]
] = {}  # what is kept and its bytes, last used last


def count_bytes(task: Task, view: View) -> int:
    """Return how much a task takes at a view."""
    return (len(task.train) + len(task.test)) * 3 * view.side**2


def _use(task: Task, view: View, size: int) -> None:
    """Note that a view of a task was used, and forget others where there is too much."""
    _shelf.pop((id(task), view), None)
    _shelf[id(task), view] = (weakref.ref(task), size)
    for key in [key for key, (other, _) in _shelf.items() if other() is None]:
        del _shelf[key]
    for key, (other, _) in list(_shelf.items())[:-1]:
        if sum(size for _, size in _shelf.values()) <= 2 * KEPT_SHARE * _memory():
            break
        oldest = other()
        assert oldest is not None
        oldest.__dict__["_pixels"].pop(key[1], None)
        del _shelf[key]


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _kept(split: Split, left_out: Iterable[int]) -> np.ndarray:
    return np.array(sorted(set(range(len(split))) - set(left_out)), dtype=np.int64)


def _stream(
    task: Task, side: str, split: Split, view: View, left_out: Iterable[int]
) -> tuple[Pixels, list[str]]:
    rows = _kept(split, left_out)
    keys = tuple(split.keys[i] for i in rows.tolist())
    return _chosen(task, side, split, rows, Streamed(split.images, rows, view, keys)), []


def _store(
    task: Task, side: str, split: Split, view: View, left_out: Iterable[int]
) -> tuple[Pixels, list[str]]:
    rows = _kept(split, left_out)
    images_N3SS = torch.empty(len(rows), 3, view.side, view.side, dtype=torch.uint8)

    def one(position: int) -> str | None:
        """Decode into place and return what is wrong with the image, or None."""
        try:
            images_N3SS[position] = square(split.images.decode(int(rows[position])), view)
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
    return _chosen(task, side, split, rows[good], Stored(images_N3SS)), notes


def _chosen(task: Task, side: str, split: Split, rows: np.ndarray, squares: Squares) -> Pixels:
    targets = split.targets[rows]
    check_labels(f"{task.name}, {side} (of the images that can be used)", targets, task.classes)
    accepted = None if split.accepted is None else split.accepted[rows]
    return Pixels(tuple(split.keys[i] for i in rows.tolist()), targets, squares, accepted)


def square(image, view: View) -> Tensor:  # image: PIL.Image.Image
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
