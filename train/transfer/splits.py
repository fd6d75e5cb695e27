"""The images of one side of a task: where they come from, what they are called, and their labels."""

# N images of a split, C classes

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from curate.errors import DataError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import cores, in_order
from curate.io.files import cache_folder, write_atomic
from curate.io.images import decode
from curate.io.stores import is_remote
from curate.rows.manifest import digest


class ImageSource(Protocol):
    """Where a split's images come from."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> bytes:
        """Return an image as stored: two images are the same when these are."""

    def decode(self, index: int) -> Any:
        """Return an image as a PIL image in RGB; raises BadImage."""


@dataclass(frozen=True)
class Files:
    """Images as byte ranges below a root.

    Args:
        root: the folder or URL that `ranges` are relative to.
        ranges: (file, offset, size) of each; null offset and size mean the whole file.
    """

    root: str
    ranges: Sequence[tuple[str, int | None, int | None]]

    def __len__(self) -> int:
        return len(self.ranges)

    @cached_property
    def _reader(self) -> ByteRangeReader:
        return ByteRangeReader(self.root)

    def read(self, index: int) -> bytes:
        """Return the bytes of the file or range."""
        return self._reader.read(*self.ranges[index])

    def decode(self, index: int) -> Any:
        """Decode it; raises BadImage."""
        return decode(self.read(index))

    def fingerprint(self) -> str | None:
        """Name the ranges, and sizes and times of their files; None where they are not on this machine's disks."""
        if is_remote(self.root):
            return None
        names = list(dict.fromkeys(file for file, _, _ in self.ranges))
        try:
            stats = [
                (found.st_size, found.st_mtime_ns) for found in (os.stat(Path(self.root, n)) for n in names)
            ]
        except OSError:  # reading it says what is wrong
            return None
        return digest(["files", str(self.root), names, stats, [list(one) for one in self.ranges]])


@dataclass(frozen=True)
class Arrays:
    """Images in memory.

    Args:
        pixels: uint8 pixels_NHW3, 0..255.
    """

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> bytes:
        """Return the pixels."""
        return self.pixels[index].tobytes()

    def decode(self, index: int) -> Any:
        """Return the pixels as an image."""
        from PIL import Image

        return Image.fromarray(self.pixels[index])


class BaseSplit:
    """The images of one side of a task: what classification and detection share."""

    keys: tuple[str, ...]
    images: ImageSource
    annotations: ClassVar[str]  # the field that has one entry an image

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def targets(self) -> np.ndarray:
        """Labels as an array: int64 targets_N, or int8 targets_NC."""
        raise NotImplementedError

    def check_lengths(self, where: str) -> None:
        """Refuse a split whose parts are not equally long.

        Args:
            where: what the error begins with.

        Raises:
            DataError: with the three lengths.
        """
        annotations = getattr(self, self.annotations)
        if not len(self.keys) == len(annotations) == len(self.images):
            raise DataError(
                f"{where}: {len(self.keys)} keys, {len(annotations)} {self.annotations}, {len(self.images)} images"
            )

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """The sha256 of each image as stored; reads them all, unless their files are as they were before."""
        fingerprint = fingerprint_of(self.images)
        if fingerprint is None:
            return self._hashed()
        cached = cache_folder() / "transfer" / f"{fingerprint.removeprefix('sha256:')}.sha256"
        try:
            data = cached.read_bytes()
        except OSError:
            data = b""
        if len(data) != 32 * len(self):
            data = b"".join(bytes.fromhex(value) for value in self._hashed())
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(cached, data)
        return tuple(data[at : at + 32].hex() for at in range(0, len(data), 32))

    def _hashed(self) -> tuple[str, ...]:
        return tuple(in_threads(lambda i: hashlib.sha256(self.images.read(i)).hexdigest(), len(self)))


@dataclass(frozen=True, eq=False)
class Split(BaseSplit):
    """The images of one side of a classification task.

    Args:
        keys: unique names, which chance goes by.
        labels: positions in the task's classes, one an image; or, of a task with several labels an image, int8
            labels_NC of 1 (has it), 0 (has not) and -1 (not counted, such as a difficult object).
        images: as many as keys.
        accepted: bool accepted_NC, the labels that a second look found right (ReaL's); the metric of these leaves out
            an image that has none.
    """

    keys: tuple[str, ...]
    labels: tuple[int, ...] | np.ndarray
    images: ImageSource
    accepted: np.ndarray | None = None

    annotations = "labels"

    @cached_property
    def targets(self) -> np.ndarray:
        """The labels as an array: int64 targets_N, or int8 targets_NC."""
        return self.labels if isinstance(self.labels, np.ndarray) else np.array(self.labels, dtype=np.int64)


def fingerprint_of(images: ImageSource) -> str | None:
    """Return what names the content of images without reading them; None where they cannot say."""
    return getattr(images, "fingerprint", lambda: None)()


def in_threads(function: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Return function(0), function(1), …, in order, from several threads."""
    workers = min(16, cores())
    yield from in_order((partial(function, i) for i in range(count)), workers, ahead=8 * workers)
