"""Images in one folder a class, below train/ and test/ (or val/), or split here.

Without train/ and test/, a fifth of every class is for testing, by chance of the file's name. Classes are
in the order of their sorted names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from curate.errors import DataError, RecipeError
from curate.images import EXTENSIONS
from train.transfer.tasks import Files, Split, Task, check_labels, split_by_chance

USAGE = "folder:PATH"
TEST_FRACTION = 0.2  # where the folder has no split of its own
TEST_NAMES = ("test", "val")  # the first that is there


def load(argument: str | None) -> Task:
    """Open a folder as a task; its name is the folder's.

    Raises:
        RecipeError: no path, or no folder there, or train/ without test/.
        DataError: it holds no images, or a class is missing from one side.
    """
    if not argument:
        raise RecipeError("task folder needs a path", hint="write: folder:PATH")
    root = Path(argument).expanduser().resolve()
    if not root.is_dir():
        what = "not a folder" if root.exists() else "there is nothing"
        raise RecipeError(
            f"task folder: {root}: {what}", hint="PATH holds train/CLASS/… and test/CLASS/…, or CLASS/…"
        )
    sides = _sides(root)
    return _split_there(root, *sides) if sides else _split_here(root)


def _sides(root: Path) -> tuple[str, str] | None:
    """Return the names of the folders for training and testing, where the folder has them."""
    test = next((name for name in TEST_NAMES if (root / name).is_dir()), None)
    train = "train" if (root / "train").is_dir() else None
    if train and test:
        return train, test
    if train or test:
        missing = "train/" if test else " or ".join(f"{name}/" for name in TEST_NAMES)
        raise RecipeError(f"{root}: has {train or test}/ but no {missing}", hint="a task needs both sides")
    return None


def _split_there(root: Path, train: str, test: str) -> Task:
    sides = {side: _scan(root, root / side) for side in (train, test)}
    classes = tuple(sorted({name for names, _, _ in sides.values() for name in names}))
    splits = {side: _split(root, found, classes) for side, (_, found, _) in sides.items()}
    for side, split in splits.items():
        check_labels(f"{root.name}, {side}/", split.labels, classes)
    passed = [f"{side}/: {note}" for side, (_, _, notes) in sides.items() for note in notes]
    return Task(root.name, classes, splits[train], splits[test], notes=tuple(passed))


def _split_here(root: Path) -> Task:
    classes, found, notes = _scan(root, root)
    if len(classes) == 1 and (root / classes[0] / "train").is_dir():
        raise RecipeError(f"{root}: one level too high", hint=f"write: folder:{root / classes[0]}")
    whole = _split(root, found, classes)
    sizes = Counter(whole.labels)
    for label, name in enumerate(classes):
        if sizes[label] < 2:
            raise DataError(
                f"{root}: class {name!r} has {sizes[label]} images, and training and testing need one each",
                hint="add images, or take the class out",
            )
    testing = split_by_chance(whole.keys, whole.labels, fraction=TEST_FRACTION)
    train = _split(root, [pair for pair, is_test in zip(found, testing, strict=True) if not is_test], classes)
    test = _split(root, [pair for pair, is_test in zip(found, testing, strict=True) if is_test], classes)
    return Task(root.name, classes, train, test, notes=tuple(notes))


def _split(root: Path, found: list[tuple[str, str]], classes: tuple[str, ...]) -> Split:
    label = {name: i for i, name in enumerate(classes)}
    keys = tuple(file for _, file in found)
    return Split(
        keys, tuple(label[name] for name, _ in found), Files(str(root), [(f, None, None) for f in keys])
    )


def _scan(root: Path, top: Path) -> tuple[tuple[str, ...], list[tuple[str, str]], list[str]]:
    """Return the class folders of `top`, (class, file relative to root) of every image in them, and notes."""
    classes: list[str] = []
    found: list[tuple[str, str]] = []
    passed: list[str] = []
    for entry in sorted(os.scandir(top), key=lambda e: e.name):
        if not entry.is_dir():
            passed.append(entry.name)
        elif not entry.name.startswith("."):
            classes.append(entry.name)
            files = [f for folder, _, names in os.walk(entry.path) for f in _below(root, folder, names)]
            images = [file for file in files if file.rpartition(".")[2].lower() in EXTENSIONS]
            passed += sorted(set(files) - set(images))
            found += [(entry.name, file) for file in sorted(images)]
    if not found:
        raise DataError(f"{top}: no images in class folders", hint="it should hold CLASS/image.jpg")
    notes = [f"{len(passed)} files are no images by their name (such as {passed[0]})"] if passed else []
    return tuple(classes), found, notes


def _below(root: Path, folder: str, names: Iterable[str]) -> list[str]:
    return [Path(folder, name).relative_to(root).as_posix() for name in names]
