"""The loaders of a run: for training and for validation; and checks of what they read before the first step."""

from __future__ import annotations

from typing import Any

import torch

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from train.data.loader import Loader
from train.data.samples import has_split
from train.loop.config import LoopConfig
from train.loop.devices import pick_workers
from train.loop.distributed import Distributed

MEASURED_AT_ONCE = 256  # images


def train_loader(
    dataset: Dataset, config: LoopConfig, device: torch.device, distributed: Distributed, **more: Any
) -> Loader:
    """Return random crops of all rows that are not held out, in batches that all ranks share.

    Args:
        more: options of the loader.
    """
    return _loader(
        dataset, config, device, split="train", augment=True, drop_last=True, order=config.order, cache=config.cache,
        batch_size=config.batch_size, rank=distributed.rank, world_size=distributed.world_size, **more,
    )  # fmt: skip


def val_loader(
    dataset: Dataset, val: Dataset | None, config: LoopConfig, device: torch.device, **more: Any
) -> Loader | None:
    """Return the middle of each image of `val`, else of the dataset's own split val; None where there is neither.

    Args:
        val: its split val where it has one, else all of it.
        more: options of the loader.

    Raises:
        RecipeError: `val` is what is learned from.
    """
    source = val or dataset
    split = "val" if has_split(source, "val") else None
    if split is None and source.digest == dataset.digest:
        if val is None:
            return None
        raise RecipeError(
            f"--val {val.path}: it would be measured on the images that it learns from",
            hint="hold some out by the step `split: {shares: {val: 0.1}}`, and leave --val out",
        )
    return plain(source, config, device, split=split, cache=config.cache, **more)


def plain(dataset: Dataset, config: LoopConfig, device: torch.device, **more: Any) -> Loader:
    """Return the middle of each image, in the manifest's order.

    Args:
        more: options of the loader.
    """
    size = max(1, min(MEASURED_AT_ONCE, config.batch_size // config.accumulate))
    options: dict[str, Any] = {
        "order": "manifest", "augment": False, "cache": "none", "batch_size": size,
    } | more  # fmt: skip
    return _loader(dataset, config, device, **options)


def _loader(dataset: Dataset, config: LoopConfig, device: torch.device, **more: Any) -> Loader:
    return Loader(
        dataset,
        image_size=config.image_size,
        seed=config.seed,
        crop_from=config.crop_from,
        min_area=config.min_area,
        workers=pick_workers(config.workers),
        device=device,
        **more,
    )


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
