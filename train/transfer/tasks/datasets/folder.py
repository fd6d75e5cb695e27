"""Images in one folder a class, below train/ and test/ (or val/), or split here.

Without train/ and test/, a fifth of every class is for testing, by chance of the image's key. What counts as
an image, the keys and the order of the classes are those of the source `folder` of recipes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from curate.errors import DataError, RecipeError
from curate.sources import Index
from curate.sources.folder import folder
from train.transfer.splits import Files, Split
from train.transfer.tasks.task import Task, check_labels, split_by_chance
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

USAGE = "folder:PATH"
TEST_FRACTION = 0.2  # where the folder has no split of its own
TEST_NAMES = ("test", "val")  # the first that is there


def open_named(request: TaskRequest) -> list[Task]:
    """Open the folder that the argument names."""
    if not request.argument:
        raise RecipeError("task folder needs a path", hint=f"write: {USAGE}")
    return [open_folder(request.argument)]


def open_folder(path: str | Path) -> Task:
    """Open a folder as a task; its name is the folder's.

    Raises:
        RecipeError: no folder there, no images, or train/ without test/.
        DataError: a class is missing from one side.
    """
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "there is nothing"
        raise RecipeError(
            f"task folder: {root}: {what}", hint="PATH holds train/CLASS/… and test/CLASS/…, or CLASS/…"
        )
    source = folder(path=str(root))
    index = source.index(fingerprint=source.fingerprint())
    classes = tuple(c.name for c in index.classes)
    notes = [f"{count} files left out: {reason}" for reason, count in index.counts.items()]
    rows = pq.ParquetFile(index.files[0]).read(columns=["key", "file", "offset", "size", "label", "split"])
    found = rows.filter(rows["label"].is_valid()).to_pylist()
    if len(found) < len(rows):
        notes.append(f"{len(rows) - len(found)} images left out: in no class folder")
    _check(root, index, found)
    train, test = _sides(root, found, classes)
    sides = [_split(root, side) for side in (train, test)]
    for name, split in zip(("train", "test"), sides, strict=True):
        check_labels(f"{root}, {name}", split.targets, classes)
    return Task(root.name, classes, sides[0], sides[1], notes=tuple(notes))


def _check(root: Path, index: Index, found: list[dict]) -> None:
    names = [c.id for c in index.classes]
    if len(names) == 1 and (root / names[0] / "train").is_dir():
        raise RecipeError(f"{root}: one level too high", hint=f"write: folder:{root / names[0]}")
    if not found:
        raise DataError(f"{root}: no image is in a class folder", hint="it should hold CLASS/image.jpg")


def _sides(root: Path, found: list[dict], classes: tuple[str, ...]) -> tuple[list[dict], list[dict]]:
    """Return the rows to train on and the rows to test on."""
    splits = {row["split"] for row in found}
    if splits == {None}:
        return _by_chance(root, found, classes)
    test = next((name for name in TEST_NAMES if name in splits), None)
    if "train" not in splits or test is None:
        there = ", ".join(f"{name}/" for name in sorted(splits))
        raise RecipeError(
            f"{root}: has images in {there} alone", hint="a task needs train/ and test/ (or val/)"
        )
    return [r for r in found if r["split"] == "train"], [r for r in found if r["split"] == test]


def _by_chance(root: Path, found: list[dict], classes: tuple[str, ...]) -> tuple[list[dict], list[dict]]:
    labels = [row["label"] for row in found]
    sizes = Counter(labels)
    for label, name in enumerate(classes):
        if sizes[label] < 2:
            raise DataError(
                f"{root}: class {name!r} has {sizes[label]} images, and training and testing need one each",
                hint="add images, or take the class out",
            )
    testing = split_by_chance([row["key"] for row in found], labels, fraction=TEST_FRACTION)
    pairs = list(zip(found, testing, strict=True))
    return [row for row, is_test in pairs if not is_test], [row for row, is_test in pairs if is_test]


def _split(root: Path, rows: list[dict]) -> Split:
    ranges = [(row["file"], row["offset"], row["size"]) for row in rows]
    return Split(
        tuple(row["key"] for row in rows), tuple(row["label"] for row in rows), Files(str(root), ranges)
    )


TASKS = [
    TaskInfo(
        name="folder",
        about="your own images, one folder a class",
        source="yours",
        splits="train/ and test/ (or val/); without them a fifth of every class is tested on, by chance of the image",
        get="PATH holds train/CLASS/… and test/CLASS/…, or CLASS/…",
        open=open_named,
        argument=":PATH",
    )
]
