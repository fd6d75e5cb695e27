"""A downstream task: classes in label order, images to train on, images to test on.

Tasks are opened by name: a family, and what it needs (`digits`, `folder:PATH`). Each family is one file
in `families/`. A Task can be made from arrays as well; what it must hold is checked when it is made.
"""

# N images of a split

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, Protocol

import numpy as np

from curate.chance import chance
from curate.errors import DataError, RecipeError, did_you_mean
from curate.images import decode
from curate.manifests import digest
from curate.ranges import Reader
from train.threads import in_order
from train.transfer import families

Metric = Literal["top1", "mean_per_class"]


class Images(Protocol):
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
    def _reader(self) -> Reader:
        return Reader(self.root)

    def read(self, index: int) -> bytes:
        """Return the bytes of the file or range."""
        return self._reader.read(*self.ranges[index])

    def decode(self, index: int) -> Any:
        """Decode it; raises BadImage."""
        return decode(self.read(index))


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


@dataclass(frozen=True)
class Split:
    """The images of one side of a task.

    Args:
        keys: unique names, which chance goes by.
        labels: positions in the task's classes.
        images: as many as keys.
    """

    keys: tuple[str, ...]
    labels: tuple[int, ...]
    images: Images

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """The sha256 of each image as stored; reads them all, once."""
        return tuple(in_threads(lambda i: hashlib.sha256(self.images.read(i)).hexdigest(), len(self)))


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task, checked when it is made.

    Args:
        name: what results call it.
        classes: names in label order: label i is classes[i].
        train: draws are made from these.
        test: every measurement is over all of these.
        metric: the one that the task is usually reported in.
        flip: whether a mirror image is still of its class (not so for digits).
        notes: what was passed over while opening it.

    Raises:
        DataError: fewer than two classes, names that repeat, a label without a name, a class that is missing
            from a split, a key twice or in both splits.
    """

    name: str
    classes: tuple[str, ...]
    train: Split = field(repr=False)
    test: Split = field(repr=False)
    metric: Metric = "top1"
    flip: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: {len(self.classes)} classes", hint="a task needs at least two")
        if len(set(self.classes)) < len(self.classes):
            twice = next(c for c in self.classes if self.classes.count(c) > 1)
            raise DataError(f"{self.name}: class {twice!r} twice", hint="give each class a name of its own")
        for side, split in (("train", self.train), ("test", self.test)):
            self._check(side, split)
        both = set(self.train.keys) & set(self.test.keys)
        if both:
            raise DataError(
                f"{self.name}: {len(both)} images are in train and in test (such as {min(both)!r})",
                hint="a test image must not be trained on",
            )

    def _check(self, side: str, split: Split) -> None:
        where = f"{self.name}, {side}"
        if not len(split.keys) == len(split.labels) == len(split.images):
            raise DataError(
                f"{where}: {len(split.keys)} keys, {len(split.labels)} labels, {len(split.images)} images"
            )
        if len(set(split.keys)) < len(split.keys):
            raise DataError(f"{where}: keys repeat", hint="give each image a key of its own")
        check_labels(where, split.labels, self.classes)

    @cached_property
    def digest(self) -> str:
        """Names the content: classes, keys, labels and the bytes of every image."""
        splits = [[s.keys, s.labels, s.hashes] for s in (self.train, self.test)]
        return digest(["task", self.classes, self.metric, self.flip, splits])

    @cached_property
    def leaked(self) -> frozenset[int]:
        """Positions in train of images whose bytes are in test too. No draw contains them."""
        test = set(self.test.hashes)
        return frozenset(i for i, value in enumerate(self.train.hashes) if value in test)


def check_labels(where: str, labels: Sequence[int], classes: Sequence[str]) -> None:
    """Refuse labels that the classes do not name, and classes that no label has.

    Raises:
        DataError: with the label or the class.
    """
    present = set(labels)
    strange = sorted(label for label in present if not 0 <= label < len(classes))
    if strange:
        raise DataError(
            f"{where}: label {strange[0]} has no class (there are {len(classes)}, from 0)",
            hint="labels are positions in the list of classes",
        )
    absent = [name for label, name in enumerate(classes) if label not in present]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise DataError(
            f"{where}: no image of class {absent[0]!r}{more}",
            hint="every class needs images in train and in test",
        )


def in_threads(function: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Return function(0), function(1), …, in order, from several threads."""
    workers = min(16, os.cpu_count() or 1)
    yield from in_order((partial(function, i) for i in range(count)), workers, ahead=8 * workers)


def split_by_chance(keys: Sequence[str], labels: Sequence[int], *, fraction: float) -> list[bool]:
    """Say for each image whether it is for testing: `fraction` of every class, by chance of the key.

    A class keeps at least one image on each side; one of a single image has none for testing.
    """
    by_class: dict[int, list[int]] = {}
    for row in sorted(range(len(keys)), key=lambda i: (chance(keys[i], 0, "transfer/test"), keys[i])):
        by_class.setdefault(labels[row], []).append(row)
    testing = [False] * len(keys)
    for rows in by_class.values():
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        for row in rows[:count]:
            testing[row] = True
    return testing


def open_task(name: str) -> Task:
    """Open a task by name: a family, then a colon and its argument where it takes one.

    Raises:
        RecipeError: no such family, or the argument is missing or wrong.
        DataError: the data is not a task.
    """
    family, colon, argument = name.partition(":")
    known = families.names()
    if family not in known:
        listed = "; ".join(f"{usage}: {about}" for usage, about in families.usages().items())
        near = did_you_mean(family, known)
        raise RecipeError(f"no task {name!r}", hint=f"{near + '; ' if near else ''}there are {listed}")
    return families.load(family, argument if colon else None)
