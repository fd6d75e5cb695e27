"""A method's run from its dataset to its folder: checked, then begun, resumed, or found finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.data.loader import Loader
from train.loop import checkpoints
from train.loop.config import LoopConfig
from train.loop.devices import pick_device
from train.loop.distributed import Distributed, joined
from train.loop.method import Method
from train.loop.training import fit
from train.runs import Run

C = TypeVar("C", bound=LoopConfig)

Prepare = Callable[[Dataset, C, Dataset | None, torch.device, Distributed], tuple[Method, Loader]]


def run_method(
    name: str,
    prepare: Prepare[C],
    dataset: Dataset,
    out: str | Path,
    config: C,
    *,
    val: Dataset | None,
    quiet: bool,
) -> Run:
    """Train by a method, resume a run, or return it if it is finished.

    Args:
        name: of the method.
        prepare: makes the method and its loader for this rank; called only if there is something to do.
        dataset: to train on.
        out: the run's folder.
        config: of the method.
        val: to measure on.
        quiet: print nothing on stderr.

    Raises:
        RecipeError: the config makes no sense, or `out` holds another run; and as `fit`.
    """
    config.check()
    out = Path(out)
    plan = {
        "method": name,
        "dataset": dataset.digest,
        "val": val.digest if val else None,
        "config": config.result_options(),
    }
    if run := checkpoints.finished(out, plan, adopt=config.adopt):
        return run
    device = pick_device(config.device)
    with joined(device) as distributed:
        method, loader = prepare(dataset, config, val, device, distributed)
        if config.evaluate_epochs and method.evaluate is None:
            raise RecipeError(
                f"evaluate_epochs is {config.evaluate_epochs}, and there is nothing to measure on",
                hint="give --val, or hold rows out by the step `split: {shares: {val: 0.1}}`",
            )
        return fit(method, loader, config, out, plan, distributed=distributed, quiet=quiet)
