"""A dry run: one step, taken for its numbers alone (shapes, parameters, FLOPs, memory)."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import closing

import torch
from rich.console import Console

from train.data.loader import Loader
from train.loop.config import LoopConfig
from train.loop.determinism import nondeterminism_note
from train.loop.distributed import Distributed
from train.loop.method import Method, PreparedBatch
from train.loop.metrics.throughput import memory_bytes
from train.loop.optim.train_step import TrainStep


def dry_run(
    method: Method, loader: Loader, config: LoopConfig, distributed: Distributed, warned: Collection[str]
) -> None:
    """Take a step, twice, and print on stdout what it needs; write nothing.

    Args:
        method: module and loss.
        loader: of the training data.
        config: of the run.
        distributed: the processes that share each batch; rank 0 prints.
        warned: the operators that are not deterministic; filled meanwhile.
    """
    began = time.perf_counter()
    with closing(loader.epoch(0)) as batches:
        batch = next(batches)
    read_s = time.perf_counter() - began
    per_epoch = loader.steps_per_epoch
    total = config.total_steps(per_epoch)
    train_step = TrainStep(
        method, config, distributed, loader.device, total_steps=total, steps_per_epoch=per_epoch
    )
    method.module.train()
    prepared = train_step.prepare_batch(batch)
    flops = training_flops(method, prepared)
    seconds, losses = [], []
    for step in range(2):  # the first also chooses kernels
        began = time.perf_counter()
        losses.append(train_step.step(prepared, step).item())
        seconds.append(time.perf_counter() - began)
    if not distributed.first:
        return
    parameters = sum(p.numel() for p in method.module.parameters())
    say = Console(soft_wrap=True, highlight=False, markup=False).print
    say(f"{method.name}: {method.spec.name}, {parameters:,} parameters")
    for name, column in [*_named("input", prepared.inputs), *_named("target", prepared.targets)]:
        say(f"  {name}: {tuple(column.shape)} {str(column.dtype).removeprefix('torch.')} on {column.device}")
    say(
        f"  images: {len(loader):,} of {loader.dataset.name!r}; {per_epoch:,} steps an epoch, {total:,} in all"
    )
    say(f"  loss: {losses[0]:.4f}; of the same batch after a step {losses[1]:.4f}")
    if flops is not None:
        say(f"  FLOPs: {flops / 1e9:.3g} G a sample, {flops * config.batch_size * total:.3g} in all")
    say(f"  memory: {memory_bytes(loader.device) / 1e9:.2f} GB")
    say(f"  time: {read_s:.2f} s to the first batch; a step {seconds[0]:.2f} s, again {seconds[1]:.2f} s")
    if warned:
        say(f"  {nondeterminism_note(warned)}")


def training_flops(method: Method, prepared: PreparedBatch) -> float | None:
    """Return the FLOPs of forward and backward per sample; None where they cannot be counted."""
    from train.loop.metrics.flops import per_sample

    try:
        return per_sample(method, prepared)
    except (RuntimeError, NotImplementedError, ValueError):  # an operation that the counter cannot follow
        return None


def _named(name: str, columns: tuple[torch.Tensor, ...]) -> list[tuple[str, torch.Tensor]]:
    return [(f"{name} {number}", column) for number, column in enumerate(columns)]
