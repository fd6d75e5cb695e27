"""The files of a task with their classes: divided into train and test, counted, and named for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from curate.sources._index_cache import make_key
from train.transfer.tasks.task import split_by_chance

Sizes = tuple[int, int, int]  # classes, training images, test images


class LabeledFile(NamedTuple):
    """An image file and its class.

    Args:
        key: of the image; chance goes by it.
        file: its path below the task's root.
        class_id: the class as the source calls it.
    """

    key: str
    file: str
    class_id: str


def labeled_file(file: str, class_id: str, *, below: str = "") -> LabeledFile:
    """Return a file below the folder `below`, which is not a part of its key."""
    key = make_key(file.rpartition(".")[0] or file)
    return LabeledFile(key, f"{below}/{file}" if below else file, class_id)


def size_notes(published: Sizes | None, found: Sizes) -> list[str]:
    """Return notes where data is not what was published: a part of it, or more.

    The division into train and test is not compared: where there is no official split it follows from rounding.
    """
    if published is None or (found[0] == published[0] and sum(found[1:]) == sum(published[1:])):
        return []
    kinds = ("classes", "training images", "test images")
    return [
        f"a cut: {have:,} of {there:,} {kind}"
        if have < there
        else f"{have:,} {kind}, not the {there:,} published"
        for have, there, kind in zip(found, published, kinds, strict=True)
        if have != there
    ]


def shared_classes(
    train: Sequence[LabeledFile], test: Sequence[LabeledFile], absent: Container[str]
) -> tuple[list[LabeledFile], list[LabeledFile], list[str]]:
    """Leave out classes that one side lacks, where the official split is known to lack them; return notes, too.

    Args:
        absent: the classes that are known to be missing; any other stays, and is refused when the task is made.
    """
    in_train, in_test = {file.class_id for file in train}, {file.class_id for file in test}
    dropped = {name for name in in_train ^ in_test if name in absent}
    notes = []
    for side, files in (("train", train), ("test", test)):
        counts = Counter(file.class_id for file in files if file.class_id in dropped)
        notes += [
            f"{side}: {count:,} images left out: class {name!r} is on this side of the official split alone"
            for name, count in sorted(counts.items())
        ]
    rest = [[file for file in files if file.class_id not in dropped] for files in (train, test)]
    return rest[0], rest[1], notes


def divide_by_chance(
    files: Sequence[LabeledFile], test_fraction: float
) -> tuple[list[LabeledFile], list[LabeledFile]]:
    """Divide files into those to train on and those to test on, a fraction of each class by chance of the key."""
    number = {name: i for i, name in enumerate(sorted({file.class_id for file in files}))}
    labels = [number[file.class_id] for file in files]
    is_test = split_by_chance([file.key for file in files], labels, fraction=test_fraction)
    pairs = list(zip(files, is_test, strict=True))
    return [file for file, test in pairs if not test], [file for file, test in pairs if test]


def with_spaces(name: str) -> str:
    """Return a name with spaces for its underscores."""
    return " ".join(name.replace("_", " ").split())


def display_names(names: Iterable[str], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the names of classes for people: those of `own` where there are any, else the name with spaces."""
    return {name: (own or {}).get(name) or with_spaces(name) for name in names}
