"""The dataset that a run was trained on, as `run.json` records it, and how to find it again.

A run records the classes and the caption arguments of its dataset, so it does not need the dataset any more. Older runs
do not; for them the dataset is searched for, and recognised by its digest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from curate.datasets.dataset import INFO, ClassRecord, Dataset, open_dataset
from curate.errors import CurateError
from curate.io.records import Record
from curate.io.stores import is_remote
from curate.rows.manifest import Class
from train.data.captions import caption_arguments

ABOVE = 2  # folders above a run that its dataset is looked for in
LOOKED_AT = 1000  # datasets there


class DatasetUsed(Record):
    """The dataset that a run was trained on."""

    name: str
    digest: str
    rows: int
    classes: int
    path: str  # absolute, or a URL
    path_from_run: str | None = None  # the same from the run's folder, for trees that are moved as a whole
    class_list: list[ClassRecord] | None = None  # in label order; None in older runs
    caption: dict[str, Any] | None = (
        None  # arguments of the recipe's last step that made captions from class names
    )
    recipe: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, run: Path) -> DatasetUsed:
        """Describe the dataset of the run in a folder."""
        path, near = str(dataset.path), None
        if not is_remote(path):
            path = os.path.abspath(path)
            near = os.path.relpath(os.path.realpath(path), os.path.realpath(run))
        return cls(
            name=dataset.name,
            digest=dataset.digest,
            rows=len(dataset),
            classes=len(dataset.classes),
            path=path,
            path_from_run=near,
            class_list=dataset.info.classes,
            caption=caption_arguments(dataset),
            recipe=dataset.info.recipe,
        )

    @property
    def own_classes(self) -> tuple[Class, ...] | None:
        """The classes in label order; None where the run does not have them."""
        if self.class_list is None:
            return None
        return tuple(Class(record.name, record.wnid, tuple(record.fine)) for record in self.class_list)


def find_dataset(used: DatasetUsed, run: Path) -> Dataset | None:
    """Return the dataset that a run was trained on, wherever it is now; None where it is not found.

    Args:
        used: the record of the run.
        run: the run's folder.
    """
    for place in _places(used, run):
        try:
            dataset = open_dataset(place)
        except (CurateError, OSError):
            continue
        if dataset.digest == used.digest:
            return dataset
    return None


def _places(used: DatasetUsed, run: Path) -> Iterator[str | Path]:
    """Yield places where a dataset may be: its old path, its path relative to the run, and any near it."""
    yield used.path
    if is_remote(used.path):
        return
    if used.path_from_run is not None:
        yield run / used.path_from_run
    above = run.resolve().parents[:ABOVE]
    yield from (
        folder / used.path for folder in above
    )  # older runs have paths relative to where they were started
    near = (
        file.parent for folder in above for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{INFO}")
    )
    yield from islice(near, LOOKED_AT)
