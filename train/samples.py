"""The rows of a dataset that a loader reads, and their labels."""

# N samples

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.datasets import Dataset
from curate.errors import DataError

HELD_OUT = ("val", "valid", "validation", "test")  # splits that are never trained on
COLUMNS = ["key", "file", "offset", "size", "width", "height", "label", "caption", "split"]


def rows_of(dataset: Dataset, split: str | None) -> pa.Table:
    """Return the rows of a split, in the manifest's order, with the columns that a loader and its user need.

    Args:
        dataset: where from.
        split: the name of one; "train" means every row that is not held out; None means all.

    Raises:
        DataError: there are no such rows.
    """
    table = dataset.table(COLUMNS)
    if split == "train":
        held_out = pc.is_in(table["split"], value_set=pa.array(HELD_OUT))
        table = table.filter(pc.invert(held_out))
    elif split is not None:
        table = table.filter(pc.equal(table["split"], split))
    if not len(table):
        what = "no rows" if split is None else f"no rows of the split {split!r}"
        raise DataError(f"{dataset.path}: {what}", hint=f"`curate show {dataset.path}` says what is in it")
    return table.combine_chunks()


def labels_of(dataset: Dataset, table: pa.Table, needed: bool) -> np.ndarray:
    """Return the labels, int64, -1 for none.

    Raises:
        DataError: a label is needed and missing, or beyond the classes.
    """
    missing = table["label"].null_count
    if needed and missing:
        raise DataError(
            f"{dataset.path}: {missing} of {len(table)} rows have no label",
            hint="drop or label them in the recipe, or train by a method that needs none (simclr, clip)",
        )
    labels_N = pc.fill_null(table["label"], -1).to_numpy().astype(np.int64)
    wrong = labels_N[(labels_N < -1) | (labels_N >= len(dataset.classes))] if needed else labels_N[:0]
    if len(wrong):
        raise DataError(
            f"{dataset.path}: label {wrong[0]} where there are {len(dataset.classes)} classes",
            hint=f"build it again; `curate verify {dataset.path}` lists what else is wrong",
        )
    return labels_N


def has_split(dataset: Dataset, split: str) -> bool:
    """Whether any row is of a split."""
    return bool(pc.any(pc.equal(dataset.table(["split"])["split"], split)).as_py())
