"""The one training loop. A method brings what learns and its loss; the rest is here.

A run that was stopped at any moment goes on with the same command and ends as if it had not been: the order and
the crops follow from the step, and a checkpoint holds the weights, the optimiser and torch's random state.
(On a GPU, as far as its kernels repeat themselves.)
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from curate.errors import RecipeError
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


def fit(method: Method, loader: Loader, config: LoopConfig, out: Path, plan: Plan) -> Run:
    """Train, from the start or from the last checkpoint, and return the finished run.

    Raises:
        RecipeError: the loss is no longer a number.
        DataError: too many images cannot be read.
        SystemExit: SIGTERM or SIGINT came; a checkpoint was written first.
    """
    checkpoints.begin(out, plan)
    with Log(out, config.total_steps(loader.steps_per_epoch)) as log:
        loop = Loop(method, loader, config, out, log)
        if loader.cached:
            log.phase("decode", len(loader))
            loader.prepare(log.advance)
        loop.run()
        if loader.broken:
            log.say(f"{len(loader.broken)} images could not be read; {out / BROKEN} lists them")
            write_atomic(out / BROKEN, json.dumps(loader.broken, indent=2, sort_keys=True).encode() + b"\n")
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

    def __init__(self, method: Method, loader: Loader, config: LoopConfig, out: Path, log: Log) -> None:
        self.method = method
        self.loader = loader
        self.config = config
        self.out = out
        self.log = log
        self.total_steps = config.total_steps(loader.steps_per_epoch)
        self.warmup_steps = round(config.warmup_fraction * self.total_steps)
        torch.manual_seed(config.seed)  # for dropout and the like
        self.optimizer = optimizer(
            method.module, config.optimizer, lr=config.lr, weight_decay=config.weight_decay
        )
        self.state = State(**checkpoints.restore(out, method.module, self.optimizer))
        self.loss_sum = torch.tensor(self.state.loss_sum, dtype=torch.float64).to(loader.device)

    def run(self) -> None:
        """Take the steps that are left."""
        state = self.state
        self.log.phase("train", self.total_steps, state.step)
        self.method.module.train()
        meter, saved_at = Meter(), time.monotonic()
        with Stop() as stop, closing(self._batches()) as batches:
            while state.step < self.total_steps:
                began = time.perf_counter()
                epoch, batch = next(batches)
                waited = time.perf_counter() - began
                lr = self._lr()
                if len(batch):  # else its images are all broken, and only the count goes on
                    self._learn(batch, lr)
                state.step += 1
                state.samples += len(batch)
                meter.add(len(batch), waited)
                if state.step % LOG_STEPS == 0 or state.step == self.total_steps:
                    self._note(epoch, lr, meter)
                if stop.signal or time.monotonic() - saved_at > self.config.checkpoint_s:
                    self._save()
                    saved_at = time.monotonic()
                if stop.signal:
                    self.log.say(f"stopped at step {state.step}; the same command goes on from there")
                    raise SystemExit(128 + stop.signal)

