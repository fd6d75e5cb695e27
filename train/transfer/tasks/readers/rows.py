"""The images of a task before they are labelled: divided, counted, and named for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from curate.sources._index_cache import make_key
from train.transfer.tasks.task import split_by_chance

Sizes = tuple[int, int, int]  # classes, training images, test images


class Row(NamedTuple):
    """An image of a task.

    Args:
        key: what chance goes by.
        file: where it is, below the task's root.
        of: its class, as the source calls it.
    """

    key: str
    file: str
    of: str


def row(file: str, of: str, *, below: str = "") -> Row:
    """Return the row of a file below the folder `below`, which its key does not tell."""
    return Row(make_key(file.rpartition(".")[0] or file), f"{below}/{file}" if below else file, of)


def size_notes(published: Sizes | None, found: Sizes) -> list[str]:
    """Say where data is not what was published: a cut, or more of it.

    How a whole is divided is not compared, for where there is no official split it follows from rounding.
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
    train: Sequence[Row], test: Sequence[Row], absent: Container[str]
) -> tuple[list[Row], list[Row], list[str]]:
    """Leave out classes that one side lacks, where the official split is known to lack them, and say so.

    Args:
        absent: the classes that are known to be missing; any other stays, and is refused when the task is made.
    """
    has_train, has_test = {one.of for one in train}, {one.of for one in test}
    gone = {name for name in has_train ^ has_test if name in absent}
    notes = []
    for side, rows in (("train", train), ("test", test)):
        counts = Counter(one.of for one in rows if one.of in gone)
        notes += [
            f"{side}: {count:,} images left out: class {name!r} is on this side of the official split alone"
            for name, count in sorted(counts.items())
        ]
    kept = [[one for one in rows if one.of not in gone] for rows in (train, test)]
    return kept[0], kept[1], notes


def by_chance(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Divide rows into those to train on and those to test on, `fraction` of each class."""
    number = {name: i for i, name in enumerate(sorted({one.of for one in rows}))}
    testing = split_by_chance([one.key for one in rows], [number[one.of] for one in rows], fraction=fraction)
    pairs = list(zip(rows, testing, strict=True))
    return [one for one, is_test in pairs if not is_test], [one for one, is_test in pairs if is_test]


def spaced(name: str) -> str:
    """Return a name with spaces for its underscores."""
    return " ".join(name.replace("_", " ").split())


def readable(names: Iterable[str], own: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what people call classes: `own` words where there are any, else the name with spaces."""
    return {name: (own or {}).get(name) or spaced(name) for name in names}
