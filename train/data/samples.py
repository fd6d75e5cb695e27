"""The samples that a loader reads: where their bytes are, their labels and chances. Ten million take 0.4 GB."""

# N samples, B of them

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.captions.texts import LIST
from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from curate.io.byte_ranges import is_remote
from train.augment import chance
from train.data.captions import choices_of
from train.data.text_columns import Choices, Texts

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
        self._kept = _rows_of(dataset, split)
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
    def said(self) -> Choices:
        """One text a sample: its caption."""
        return Choices.of_captions(self._column("caption"))

    @cached_property
    def choices(self) -> Choices:
        """All texts that each sample may be learned with."""
        lists = self._column(LIST) if LIST in self.dataset.info.columns else None
        return choices_of(self.dataset, self._column("caption"), self.labels_N, lists)

    @property
    def parts(self) -> Sequence[Samples]:
        """The datasets' samples: these alone."""
        return [self]

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
        return column if self._kept is None else column.filter(self._kept)


class Union:
    """The samples of several datasets, numbered one dataset after another."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        classes = [c.id for c in parts[0].dataset.classes]
        for part in parts[1:]:
            if [c.id for c in part.dataset.classes] != classes:
                raise RecipeError(
                    f"{part.dataset.path}: {len(part.dataset.classes)} classes, not the {len(classes)} of "
                    f"{parts[0].dataset.path}",
                    hint="sets that are learned from together need the same classes in the same order",
                )
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        self.chances_N = np.concatenate([part.chances_N for part in parts])
        self.labels_N = np.concatenate([part.labels_N for part in parts])
        self.keys: Texts = Texts.joined([part.keys for part in parts])
        self.largest = max((one.largest for one in parts if one.largest is not None), default=None)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def captions(self) -> Texts:
        """The samples' captions; None where there is none."""
        return Texts.joined([part.captions for part in self.parts])

    @property
    def said(self) -> Choices:
        """One text a sample: its caption."""
        return Choices.joined([part.said for part in self.parts])

    @cached_property
    def choices(self) -> Choices:
        """All texts that each sample may be learned with."""
        return Choices.joined([part.choices for part in self.parts])

    def read(self, rows_B: np.ndarray) -> list[bytes | DataError]:
        """Return the bytes of samples, or why they cannot be read."""
        found: list[bytes | DataError] = [b""] * len(rows_B)
        owners_B = np.searchsorted(self.starts, rows_B, side="right") - 1
        for owner in np.unique(owners_B).tolist():
            places = np.flatnonzero(owners_B == owner)
            answers = self.parts[owner].read(rows_B[places] - self.starts[owner])
            for place, answer in zip(places.tolist(), answers, strict=True):
                found[place] = answer
        return found


def samples_of(
    datasets: Sequence[Dataset], split: str | None, *, seed: int, need_labels: bool
) -> Samples | Union:
    """Return the samples of one dataset or of several."""
    if not datasets:
        raise RecipeError("no dataset to read", hint="give one, or several to mix")
    parts = [Samples(one, split, seed=seed, need_labels=need_labels) for one in datasets]
    return parts[0] if len(parts) == 1 else Union(parts)


def has_split(dataset: Dataset, split: str) -> bool:
    """Whether any row is of a split."""
    return bool(pc.any(pc.equal(dataset.table(["split"])["split"], split)).as_py())


def _rows_of(dataset: Dataset, split: str | None) -> pa.ChunkedArray | None:
    """Return which rows are of a split; None where all are."""
    count = len(dataset)
    kept = None
    if split is not None:
        column = dataset.table(["split"])["split"]
        if split == "train":
            kept = pc.invert(pc.is_in(column, value_set=pa.array(HELD_OUT)))
        else:
            kept = pc.fill_null(pc.equal(column, split), False)
        count = pc.sum(kept).as_py() or 0
    if not count:
        what = "no rows" if split is None else f"no rows of the split {split!r}"
        raise DataError(f"{dataset.path}: {what}", hint=f"`curate show {dataset.path}` says what is in it")
    return kept if count < len(dataset) else None


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
