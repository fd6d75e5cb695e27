"""One step taken for its numbers alone: shapes, parameters, FLOPs, memory."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import closing

import torch
from rich.console import Console

from train.data.loader import Loader
from train.loop.config import LoopConfig
from train.loop.determinism import said_of
from train.loop.distributed import Ranks
from train.loop.method import Lesson, Method
from train.loop.metrics.throughput import memory_bytes
from train.loop.optim.train_step import Learner


def rehearse(
    method: Method, loader: Loader, config: LoopConfig, ranks: Ranks, warned: Collection[str]
) -> None:
    """Take a step, twice, and say on stdout what it takes; nothing is written.

    Args:
        method: what learns, and how.
        loader: of what it learns from.
        config: how fast.
        ranks: the processes that share each batch; the first speaks.
        warned: filled meanwhile with the operators that do not repeat themselves.
    """
    began = time.perf_counter()
    with closing(loader.epoch(0)) as batches:
        batch = next(batches)
    read_s = time.perf_counter() - began
    per_epoch = loader.steps_per_epoch
    total = config.total_steps(per_epoch)
    learner = Learner(method, config, ranks, loader.device, total_steps=total, steps_per_epoch=per_epoch)
    method.module.train()
    lesson = learner.lesson(batch)
    flops = training_flops(method, lesson)
    seconds, losses = [], []
    for step in range(2):  # the first also chooses kernels
        began = time.perf_counter()
        losses.append(learner.learn(lesson, step).item())
        seconds.append(time.perf_counter() - began)
    if not ranks.first:
        return
    parameters = sum(p.numel() for p in method.module.parameters())
    say = Console(soft_wrap=True, highlight=False, markup=False).print
    say(f"{method.name}: {method.spec.name}, {parameters:,} parameters")
    for name, column in [*_named("input", lesson.inputs), *_named("target", lesson.targets)]:
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
        say(f"  {said_of(warned)}")


def training_flops(method: Method, lesson: Lesson) -> float | None:
    """Return the FLOPs of forward and backward a sample; None where they cannot be counted."""
    from train.loop.metrics.flops import per_sample

    try:
        return per_sample(method, lesson)
    except (RuntimeError, NotImplementedError, ValueError):  # an operation that the counter cannot follow
        return None


def _named(name: str, columns: tuple[torch.Tensor, ...]) -> list[tuple[str, torch.Tensor]]:
    return [(f"{name} {number}", column) for number, column in enumerate(columns)]
