"""The samples that a loader reads: where their bytes are, their labels and chances. Ten million take 0.4 GB."""

# N samples, B of them

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.captions.texts import LIST
from curate.datasets.dataset import Dataset
from curate.errors import DataError
from curate.io.stores import is_remote
from train.augment import chance
from train.data.captions import choices_of_rows
from train.data.text_columns import CaptionChoices, Texts

HELD_OUT = ("val", "valid", "validation", "test")  # splits that are never trained on


class Samples:
    """The rows of a split of a dataset, in the manifest's order; `largest` is the longest short side in pixels.

    Args:
        dataset: where from.
        split: the name of one; "train" means every row that is not held out; None means all.
        seed: of the chances.
        need_labels: refuse rows without one.

    Raises:
        DataError: there are no such rows, or labels are missing or beyond the classes.
    """

    def __init__(self, dataset: Dataset, split: str | None, *, seed: int, need_labels: bool) -> None:
        self.dataset = dataset
        self._in_split = _rows_of(dataset, split)
        keys = self._column("key")
        self.chances_N = chance.of_keys(keys, seed)
        self.keys: Texts = Texts(keys)
        self.labels_N = _labels(dataset, self._column("label"), need_labels)
        self.files = Texts(self._column("file"))
        self.offsets_N = _numbers(self._column("offset"), 0)
        self.sizes_N = _numbers(self._column("size"), -1)
        short = pc.min_element_wise(self._column("width"), self._column("height"), skip_nulls=False)
        self.largest: int | None = pc.max(short).as_py()
        del keys, short
        self.reader = dataset.reader()
        pa.default_memory_pool().release_unused()  # what reading took, before workers copy this process

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def captions(self) -> Texts:
        """The samples' captions; None where there is none."""
        return Texts(self._column("caption"))

    @property
    def fixed_captions(self) -> CaptionChoices:
        """One text a sample: its caption."""
        return CaptionChoices.from_captions(self._column("caption"))

    @cached_property
    def caption_choices(self) -> CaptionChoices:
        """All texts that each sample may be trained with."""
        lists = self._column(LIST) if LIST in self.dataset.info.columns else None
        return choices_of_rows(self.dataset, self._column("caption"), self.labels_N, lists)

    @property
    def remote(self) -> bool:
        """Whether the bytes are in a store, not in files."""
        return is_remote(self.reader.root)

    def read(self, rows_B: np.ndarray) -> list[bytes | DataError]:
        """Return the bytes of samples, or why they cannot be read."""
        sizes = [None if size < 0 else size for size in self.sizes_N[rows_B].tolist()]
        return self.reader.read_many(self.files.take(rows_B), self.offsets_N[rows_B].tolist(), sizes)

    def _column(self, name: str) -> pa.ChunkedArray:
        column = self.dataset.table([name])[name]
        return column if self._in_split is None else column.filter(self._in_split)


def has_split(dataset: Dataset, split: str) -> bool:
    """Whether any row is of a split."""
    return bool(pc.any(pc.equal(dataset.table(["split"])["split"], split)).as_py())


def _rows_of(dataset: Dataset, split: str | None) -> pa.ChunkedArray | None:
    """Return which rows are of a split; None where all are."""
    count = len(dataset)
    in_split = None
    if split is not None:
        column = dataset.table(["split"])["split"]
        if split == "train":
            in_split = pc.invert(pc.is_in(column, value_set=pa.array(HELD_OUT)))
        else:
            in_split = pc.fill_null(pc.equal(column, split), False)
        count = pc.sum(in_split).as_py() or 0
    if not count:
        what = "no rows" if split is None else f"no rows of the split {split!r}"
        raise DataError(f"{dataset.path}: {what}", hint=f"`curate show {dataset.path}` says what is in it")
    return in_split if count < len(dataset) else None


def _labels(dataset: Dataset, column: pa.ChunkedArray, needed: bool) -> np.ndarray:
    """Return the labels, int32, -1 for none.

    Raises:
        DataError: a label is needed and missing, or beyond the classes.
    """
    if needed and column.null_count:
        raise DataError(
            f"{dataset.path}: {column.null_count} of {len(column)} rows have no label",
            hint="drop or label them in the recipe, or train by a method that needs none (simclr, clip)",
        )
    labels_N = pc.fill_null(column, -1).to_numpy().astype(np.int32)
    wrong = labels_N[(labels_N < 0) | (labels_N >= len(dataset.classes))] if needed else labels_N[:0]
    if len(wrong):
        raise DataError(
            f"{dataset.path}: label {wrong[0]} where there are {len(dataset.classes)} classes",
            hint=f"build it again; `curate verify {dataset.path}` lists what else is wrong",
        )
    return labels_N


def _numbers(column: pa.ChunkedArray, unknown: int) -> np.ndarray:
    """Return whole numbers, in four bytes each where they fit."""
    numbers = pc.fill_null(column, unknown).to_numpy()
    return numbers.astype(np.int32) if len(numbers) and numbers.max() < 2**31 else numbers.astype(np.int64)
