"""Datasets that nothing can be learned from, refused before the first step."""

from __future__ import annotations

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from train.data.loader import Loader


def check_batch_fits(loader: Loader) -> None:
    """Refuse fewer samples than a batch.

    Raises:
        DataError: there are fewer.
    """
    if len(loader) < loader.batch_size:
        raise DataError(
            f"{loader.dataset.path}: {len(loader)} samples to learn from, fewer than a batch of {loader.batch_size}",
            hint=f"take a batch_size of {len(loader)} or less"
            if len(loader) > 1
            else "`curate show` says what is in it",
        )


def check_labels(loader: Loader) -> None:
    """Refuse labels beyond the classes, where there are any.

    Raises:
        DataError: there is one.
    """
    dataset, most = loader.dataset, int(loader.labels_N.max())
    if dataset.classes and most >= len(dataset.classes):
        raise DataError(
            f"{dataset.path}: label {most} where there are {len(dataset.classes)} classes",
            hint=f"build it again; `curate verify {dataset.path}` lists what else is wrong",
        )


def check_classes(dataset: Dataset, val: Dataset | None) -> None:
    """Refuse to measure on other classes than are learned from.

    Raises:
        RecipeError: they differ.
    """
    if val and [c.id for c in val.classes] != [c.id for c in dataset.classes]:
        raise RecipeError(
            f"{val.path}: {len(val.classes)} classes, not the {len(dataset.classes)} of {dataset.path}",
            hint="build both with the same classes, or leave val out and measure by `curate transfer`",
        )
