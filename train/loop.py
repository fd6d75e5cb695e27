"""The one training loop. A method brings what learns and its loss; the rest is here.

A run that was stopped goes on with the same command and ends as if it had not been: order and crops follow
from the step, and a checkpoint holds the weights, the optimiser and torch's random state. On a GPU, as far as
its kernels repeat themselves.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import CurateError, RecipeError
from curate.files import write_atomic
from train import checkpoints
from train.checkpoints import Plan
from train.configs import LoopConfig, autocast
from train.loader import Batch, Loader
from train.models import ModelSpec
from train.optimizers import learning_rate, optimizer
from train.progress import Log
from train.runs import DatasetUsed, Machine, Run, finish_run

LOG_STEPS = 10  # between lines of the log; each costs a GPU one pause
BROKEN = "broken.json"  # key -> reason of every image that could not be read


@dataclass(frozen=True)
class Method:
    """What a method brings to the loop.

    Args:
        name: supervised, clip, simclr.
        spec: the model that is in it.
        module: all that learns, on its device; its state is what the run saves.
        loss: a scalar from a batch.
        evaluate: the final metrics; None where there is nothing to evaluate on.
    """

    name: str
    spec: ModelSpec
    module: nn.Module
    loss: Callable[[Batch], Tensor]
    evaluate: Callable[[], dict[str, float]] | None = None


@dataclass
class State:
    """How far a run is: what a checkpoint holds besides weights and optimiser."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    loss: float = math.nan  # mean of the last line of the log
    loss_sum: float = 0.0  # since that line
    loss_steps: int = 0
    fingerprint: int = 0  # of all samples so far and their places; equal for runs that saw the same


def fit(
    method: Method, loader: Loader, config: LoopConfig, out: Path, plan: Plan, *, quiet: bool = False
) -> Run:
    """Train, from the start or from the last checkpoint, and return the finished run.

    Raises:
        RecipeError: the loss is no longer a number.
        DataError: too many images cannot be read.
        SystemExit: SIGTERM or SIGINT came; a checkpoint was written first.
    """
    checkpoints.begin(out, plan)
    loop = Loop(method, loader, config, out)
    with Log(out, quiet=quiet) as log:
        log.say(_opening(method, loader, loop))
        if loader.cache != "none":
            log.phase("decode", len(loader))
            loader.prepare(log.advance)
        loop.run(log)
        if len(loader.broken):
            log.say(f"{len(loader.broken)} images could not be read; {out / BROKEN} lists them")
            write_atomic(
                out / BROKEN, json.dumps(loader.broken.reasons, indent=2, sort_keys=True).encode() + b"\n"
            )
        state = loop.state
        metrics = {"loss": state.loss} | (method.evaluate() if method.evaluate else {})
        log.record({"step": state.step, "final": metrics})
        info = {
            "method": method.name,
            "spec": method.spec,
            "dataset": DatasetUsed.of(loader.dataset),
            "config": dataclasses.asdict(config),
            "seed": config.seed,
            "steps": state.step,
            "samples_seen": state.samples,
            "samples_fingerprint": f"{state.fingerprint:016x}",
            "seconds": round(state.seconds, 3),
            "metrics": metrics,
            "machine": Machine.here(str(loader.device)),
        }
        run = finish_run(out, info, method.module.state_dict())
        log.say(f"{out}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    checkpoints.clear(out)
    return run


class Loop:
    """The steps of one run. Use `fit`."""

    def __init__(self, method: Method, loader: Loader, config: LoopConfig, out: Path) -> None:
        self.method = method
        self.loader = loader
        self.config = config
        self.out = out
        self.total_steps = config.total_steps(loader.steps_per_epoch)
        self.warmup_steps = round(config.warmup_fraction * self.total_steps)
        torch.manual_seed(config.seed)  # for dropout and the like
        self.optimizer = optimizer(
            method.module, config.optimizer, lr=config.lr, weight_decay=config.weight_decay
        )
        self.state = State(**checkpoints.restore(out, method.module, self.optimizer))
        self.loss_sum = torch.tensor(self.state.loss_sum, dtype=torch.float64).to(loader.device)

    def run(self, log: Log) -> None:
        """Take the steps that are left."""
        state = self.state
        log.phase("train", self.total_steps, state.step)
        self.method.module.train()
        meter, saved_at = Meter(), time.monotonic()
        began = time.monotonic() - state.seconds
        with Stop() as stop, closing(self.loader.batches(state.step)) as batches:
            while state.step < self.total_steps:
                asked = time.perf_counter()
                try:
                    batch = next(batches)
                except CurateError:  # a store that is gone, a worker that was killed: nothing learned is lost
                    self._save()
                    raise
                waited_s = time.perf_counter() - asked
                lr = self._lr()
                if len(batch):  # else its images are all broken, and only the count goes on
                    self._learn(batch, lr)
                state.step += 1
                state.samples += len(batch)
                state.fingerprint = (state.fingerprint + batch.fingerprint) % 2**64
                meter.add(len(batch), waited_s)
                state.seconds = time.monotonic() - began
                if state.step % LOG_STEPS == 0 or state.step == self.total_steps:
                    self._note(log, batch.epoch, lr, meter)
                if stop.signal or time.monotonic() - saved_at > self.config.checkpoint_s:
                    self._save()
                    saved_at = time.monotonic()
                if stop.signal:
                    log.say(f"stopped at step {state.step}; the same command goes on from there")
                    raise SystemExit(128 + stop.signal)

    def _learn(self, batch: Batch, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with autocast(self.config.precision, self.loader.device):
            loss = self.method.loss(batch)
        loss.backward()
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.method.module.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sum += loss.detach()
        self.state.loss_steps += 1

    def _lr(self) -> float:
        return learning_rate(
            self.state.step,
            peak=self.config.lr,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
        )

    def _note(self, log: Log, epoch: int, lr: float, meter: Meter) -> None:
        """Write a line of the log; the GPU is waited for here and nowhere else."""
        self._check_loss()
        if self.state.loss_steps:
            self.state.loss = self.loss_sum.item() / self.state.loss_steps
        self.state.loss_steps = 0
        self.loss_sum.zero_()
        record = {"step": self.state.step, "epoch": epoch, "loss": self.state.loss, "lr": lr} | meter.read()
        if len(self.loader.broken):
            record["broken"] = len(self.loader.broken)
        log.step(record | {"samples_fingerprint": f"{self.state.fingerprint:016x}"})

    def _check_loss(self) -> None:
        if not math.isfinite(self.loss_sum.item()):
            raise RecipeError(
                f"{self.out}: the loss is {self.loss_sum.item()} at step {self.state.step}",
                hint=f"take a smaller lr (it is {self.config.lr:g}), a longer warm-up or clip_norm: 1",
            )

    def _save(self) -> None:
        self._check_loss()  # a checkpoint is good, or is not written
        self.state.loss_sum = self.loss_sum.item()
        checkpoints.save(self.out, self.method.module, self.optimizer, dataclasses.asdict(self.state))


def _opening(method: Method, loader: Loader, loop: Loop) -> str:
    spec = method.spec
    millions = sum(p.numel() for p in method.module.parameters()) / 1e6
    begin = f"from step {loop.state.step} of" if loop.state.step else "for"
    return (
        f"{method.name}: {spec.name}, {spec.stem} stem, {spec.image_size} px, {millions:.1f} M parameters; "
        f"{len(loader)} images of {loader.dataset.name!r}, {begin} {loop.total_steps} steps, {loader.device}"
    )


class Meter:
    """Samples a second, and the share of the time that went into waiting for them."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.samples = 0
        self.waited_s = 0.0

    def add(self, samples: int, waited_s: float) -> None:
        """Count a batch."""
        self.samples += samples
        self.waited_s += waited_s

    def read(self) -> dict[str, float]:
        """Return the metrics since the last reading."""
        passed = time.perf_counter() - self.began
        metrics = {
            "samples_per_s": round(self.samples / passed, 1),
            "data_wait": round(self.waited_s / passed, 4),
        }
        self.began, self.samples, self.waited_s = time.perf_counter(), 0, 0.0
        return metrics


class Stop:
    """Turn SIGTERM and Ctrl-C into a wish to stop at the end of the step; the second one stops at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _wish(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self.__exit__()
