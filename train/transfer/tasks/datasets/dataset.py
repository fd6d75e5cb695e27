"""A dataset of our own as a task: its rows of train to train on, those of test (or val) to test on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.datasets.dataset import Dataset, open_dataset
from curate.errors import DataError, RecipeError
from train.data.samples import HELD_OUT
from train.transfer.splits import Files, Split
from train.transfer.tasks.task import Task, check_labels
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

TEST_NAMES = ("test", "val", "valid", "validation")  # the first that is there
COLUMNS = ["key", "file", "offset", "size", "label", "split"]


def open_built(request: TaskRequest) -> list[Task]:
    """Open the dataset that the argument names; its name is the task's.

    Raises:
        RecipeError: there is none, it has no classes, or no split to test on.
    """
    if not request.argument:
        raise RecipeError("task dataset needs a path", hint="write: dataset:PATH")
    dataset = open_dataset(request.argument)
    if len(dataset.classes) < 2:
        hint = "a task needs a label for each image"
        raise RecipeError(f"{dataset.path}: {len(dataset.classes)} classes", hint=hint)
    rows, notes = dataset.table(COLUMNS), []
    labelled = rows.filter(rows["label"].is_valid())
    if len(labelled) < len(rows):
        notes.append(f"{len(rows) - len(labelled):,} images left out: without a label")
    counts = {one["values"]: one["counts"] for one in pc.value_counts(labelled["split"]).to_pylist()}
    test = next((name for name in TEST_NAMES if counts.get(name)), None)
    if test is None or not any(name not in HELD_OUT for name in counts):
        there = ", ".join(sorted(str(name) for name in counts if name)) or "none"
        raise RecipeError(
            f"{dataset.path}: its splits are {there}, and a task needs train, and test or val",
            hint="the step `split: {shares: {test: 0.2}}` makes one",
        )
    others = {name: count for name, count in counts.items() if name in HELD_OUT and name != test}
    notes += [f"{count:,} images left out: of the split {name}" for name, count in sorted(others.items())]
    held_out = pc.fill_null(pc.is_in(labelled["split"], value_set=pa.array(HELD_OUT)), False)
    sides = [labelled.filter(pc.invert(held_out)), labelled.filter(pc.equal(labelled["split"], test))]
    splits = [_split(dataset, table, side) for table, side in zip(sides, ("train", test), strict=True)]
    names = tuple(one.name for one in dataset.classes)
    return [Task(dataset.name, names, splits[0], splits[1], notes=tuple(notes))]


def _split(dataset: Dataset, rows: pa.Table, side: str) -> Split:
    labels_N = rows["label"].to_numpy().astype(np.int64)
    try:
        check_labels(f"{dataset.path}, {side}", labels_N, [one.name for one in dataset.classes])
    except DataError as error:
        raise DataError(
            error.message, hint="every class needs images in train and in test; build it again"
        ) from None
    places = zip(*(rows[name].to_pylist() for name in ("file", "offset", "size")), strict=True)
    return Split(
        tuple(rows["key"].to_pylist()), tuple(labels_N.tolist()), Files(dataset.byte_root, list(places))
    )


TASKS = [
    TaskInfo(
        name="dataset",
        about="a dataset that `curate build` made",
        source="yours",
        splits="its rows of train; those of test, else of val",
        get="PATH is the folder that holds dataset.json, with shards or without",
        open=open_built,
        argument=":PATH",
    )
]
