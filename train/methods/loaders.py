"""The loaders of a run: what it learns from, and what it is measured on."""

from __future__ import annotations

from typing import Any

import torch

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.data.loader import Loader
from train.data.samples import has_split
from train.loop.config import LoopConfig, pick_workers
from train.loop.distributed import Ranks

MEASURED_AT_ONCE = 256  # images


def to_learn_from(
    dataset: Dataset, config: LoopConfig, device: torch.device, ranks: Ranks, **more: Any
) -> Loader:
    """Return random crops of all rows that are not held out, in batches that all ranks share.

    Args:
        more: options of the loader.
    """
    return _loader(
        dataset, config, device, split="train", augment=True, last="drop", order=config.order, cache=config.cache,
        batch_size=config.batch_size, rank=ranks.rank, ranks=ranks.ranks, **more,
    )  # fmt: skip


def to_measure_on(
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
        "order": "manifest", "augment": False, "last": "keep", "cache": "none", "batch_size": size,
    } | more  # fmt: skip
    return _loader(dataset, config, device, **options)


def _loader(dataset: Dataset, config: LoopConfig, device: torch.device, **more: Any) -> Loader:
    return Loader(
        dataset,
        image_size=config.image_size,
        seed=config.seed,
        crop_from=config.crop_from,
        min_area=config.min_area,
        workers=pick_workers(config),
        device=device,
        **more,
    )
