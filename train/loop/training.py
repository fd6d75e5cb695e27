"""The one training loop. A method brings what learns and its loss; `Learner` takes the steps; the rest is here.

A run that was stopped goes on with the same command and ends as if it had not been: order and crops follow
from the step, and a checkpoint holds the weights, the optimiser and torch's random state. On a GPU, as far as
its kernels repeat themselves (see `deterministic`).

Several processes, started by torchrun or srun, share each batch; the first of them writes. They agree on what all
must do together, such as stopping, where a line of the log is written.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from curate.errors import CurateError, DataError, RecipeError
from curate.io.files import write_atomic
from train.data.loader import Batch, Loader
from train.data.provenance import DatasetUsed
from train.loop import checkpoints
from train.loop.checkpoints import Plan
from train.loop.config import LoopConfig
from train.loop.determinism import kernels_for, said_of
from train.loop.distributed import Ranks
from train.loop.dry_run import rehearse, training_flops
from train.loop.method import Method
from train.loop.metrics.log import Log
from train.loop.metrics.profiler import Profiler
from train.loop.metrics.throughput import Meter
from train.loop.optim.train_step import Learner
from train.loop.signals import Stop, command, exit_code
from train.runs import BEST, Best, Machine, Run, finish_run, save_weights

BROKEN = "broken.json"  # key -> reason of every image that could not be read
NOT_FINITE = "not_finite.json"  # the step whose loss was no number, and the keys of its batch


@dataclass
class State:
    """How far a run is: what a checkpoint holds besides what the learner does."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    loss: float = math.nan  # mean of the last line of the log
    loss_sum: float = 0.0  # since that line
    loss_steps: int = 0
    fingerprint: int = 0  # of all samples so far and their places; equal for runs that saw the same
    best: float = -math.inf  # of the first metric
    best_step: int = 0
    measured: dict[str, float] = field(default_factory=dict)  # the last measurement
    measured_step: int = 0
    flops_per_sample: float | None = None
    broken: dict[int, str] = field(default_factory=dict)  # rows that could not be read, with the reason
    warned: list[str] = field(default_factory=list)  # operators that do not repeat themselves


def fit(
    method: Method,
    loader: Loader,
    config: LoopConfig,
    out: Path,
    plan: Plan,
    *,
    ranks: Ranks | None = None,
    quiet: bool = False,
) -> Run:
    """Train, from the start or from the last checkpoint, and return the finished run.

    Raises:
        RecipeError: the loss is no longer a number, or the GPU's memory is too small.
        DataError: too many images cannot be read.
        MissingError: the disk is full; the checkpoint before stands.
        SystemExit: a signal came, and a checkpoint was written first; or the run was dry.
    """
    ranks = ranks or Ranks()
    if config.dry_run:
        with kernels_for(config.deterministic) as warned:
            rehearse(method, loader, config, ranks, warned)
        raise SystemExit(0)
    with (
        checkpoints.held(out) if ranks.first else nullcontext(),
        kernels_for(config.deterministic) as warned,
    ):
        ranks.wait()
        loop = Loop(method, loader, config, out, ranks, warned)
        if checkpoints.changes(out, plan):  # adopted: what was best, and what was broken, was so elsewhere
            loop.state.best, loop.state.best_step, loop.state.broken = -math.inf, 0, {}
        loader.broken.note(loop.state.broken)
        ranks.wait()
        if ranks.first:
            checkpoints.begin(out, plan)
        return _finished(loop, quiet)


def _finished(loop: Loop, quiet: bool) -> Run:
    method, loader, config, out, ranks = loop.method, loop.loader, loop.config, loop.out, loop.ranks
    with Log(out, config, quiet=quiet or not ranks.first, writes=ranks.first) as log:
        log.say(_opening(method, loader, loop))
        if loader.cache != "none":
            log.phase("decode", len(loader))
            loader.prepare(log.advance)
        loop.run(log)
        _note_broken(loader, log, out, ranks)
        state, metrics = loop.state, {"loss": loop.state.loss} | loop.state.measured
        log.record({"step": state.step, "final": metrics})
        info = {
            "method": method.name,
            "spec": method.spec,
            "dataset": DatasetUsed.of(loader.dataset, out),
            "config": dataclasses.asdict(config),
            "facts": dict(method.facts),
            "seed": config.seed,
            "steps": state.step,
            "samples_seen": state.samples,
            "samples_fingerprint": f"{ranks.sum_uint64(state.fingerprint):016x}",
            "seconds": round(state.seconds, 3),
            "metrics": metrics,
            "best": Best(step=state.best_step, value=state.best) if state.best_step else None,
            "flops_per_sample": state.flops_per_sample,
            "ranks": ranks.ranks,
            "nondeterministic": sorted(loop.warned),
            "machine": Machine.here(str(loader.device)),
        }
        run = finish_run(out, info, loop.learner.kept.state_dict(), writes=ranks.first, wait=ranks.wait)
        log.say(f"{out}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        if loop.warned:
            log.say(f"{out}: {said_of(loop.warned)}")
    if ranks.first:
        checkpoints.clear(out)
        (out / NOT_FINITE).unlink(missing_ok=True)  # of an attempt with other options
    return run


class Loop:
    """The steps of one run. Use `fit`."""

    def __init__(
        self, method: Method, loader: Loader, config: LoopConfig, out: Path, ranks: Ranks, warned: set[str]
    ) -> None:
        self.method, self.loader, self.config, self.out, self.ranks = method, loader, config, out, ranks
        per_epoch = loader.steps_per_epoch
        self.total_steps = config.total_steps(per_epoch)
        torch.manual_seed(config.seed + ranks.rank)  # for dropout and the like
        self.learner = Learner(
            method, config, ranks, loader.device, total_steps=self.total_steps, steps_per_epoch=per_epoch
        )
        self.state = _state(out, checkpoints.restore(out, self.learner, ranks))
        if self.state.step > self.total_steps:
            raise RecipeError(
                f"{out}: its checkpoint is at step {self.state.step}, and this plan has {self.total_steps}",
                hint="take more epochs, or another folder",
            )
        self.warned = warned  # filled while the steps are taken
        self.warned.update(self.state.warned)
        if not ranks.first:  # what was counted over all ranks is the first one's to go on with
            self.state = dataclasses.replace(self.state, loss_sum=0.0, loss_steps=0, fingerprint=0)
        self.loss_sum = torch.tensor(self.state.loss_sum, dtype=torch.float64).to(loader.device)
        self._recent: deque[tuple[int, np.ndarray]] = deque(maxlen=config.log_steps)  # steps and their rows
        every = config.evaluate_epochs
        self._measure_steps = every * per_epoch if every and method.evaluate is not None else 0

    def run(self, log: Log) -> None:
        """Take the steps that are left."""
        state, config = self.state, self.config
        log.phase("train", self.total_steps, state.step)
        self.method.module.train()
        self.meter = Meter(self.loader.device, state.flops_per_sample)
        self._saved_at = time.monotonic()
        began = time.monotonic() - state.seconds
        profiler = (
            Profiler(config.profile, self.out) if config.profile and self.ranks.first else nullcontext()
        )
        with Stop() as stop, closing(self.loader.batches(state.step)) as batches, profiler as profiled:
            while state.step < self.total_steps:
                if self._measure_steps and state.step % self._measure_steps == 0:
                    self._measure(log)
                try:
                    with self.meter.waiting:
                        batch = next(batches)
                except CurateError:  # a store that is gone, a worker that was killed: nothing learned is lost
                    self._save(alone=True)
                    raise
                self._learn(batch)
                self.meter.add(len(batch) * self.ranks.ranks)
                state.seconds = time.monotonic() - began
                if profiled:
                    profiled.step()
                if state.step % config.log_steps == 0 or state.step == self.total_steps:
                    self._note(log, batch.epoch)
                self._heed(stop, log)
            self._measure(log)

    def _learn(self, batch: Batch) -> None:
        state = self.state
        if len(batch):  # else its images are all broken, and only the count goes on
            lesson = self.learner.lesson(batch)
            if not state.loss_steps and state.flops_per_sample is None:
                state.flops_per_sample = self.meter.flops_per_sample = training_flops(self.method, lesson)
            self.loss_sum += self.learner.learn(lesson, state.step)
            state.loss_steps += 1
        state.step += 1
        state.samples += len(batch) * self.ranks.ranks
        state.fingerprint = (state.fingerprint + batch.fingerprint) % 2**64
        self._recent.append((state.step, batch.rows))

    def _note(self, log: Log, epoch: int) -> None:
        """Write a line of the log; the GPU is waited for here and nowhere else."""
        self._check()
        state = self.state
        told = torch.stack([self.loss_sum, torch.full_like(self.loss_sum, state.loss_steps)])
        loss_sum, loss_steps = self.ranks.sum(told).tolist()
        if loss_steps:
            state.loss = loss_sum / loss_steps
        state.loss_steps = 0
        self.loss_sum.zero_()
        record: dict[str, Any] = {"step": state.step, "epoch": epoch, "loss": state.loss}
        record |= {"lr": self.learner.lr} | self.meter.read(self.ranks.ranks)
        if self.method.watched is not None:
            watched = {name: value.detach().double() for name, value in self.method.watched().items()}
            summed = self.ranks.sum(torch.stack([*watched.values()])).tolist() if watched else []
            record |= {n: round(v / self.ranks.ranks, 6) for n, v in zip(watched, summed, strict=True)}
        if len(self.loader.broken):
            record["broken"] = len(self.loader.broken)
        log.step(record | {"samples_fingerprint": f"{self.ranks.sum_uint64(state.fingerprint):016x}"})

    def _check(self) -> None:
        """Stop the run where a loss or a gradient was no number, and name the batch."""
        failed = self.ranks.first_of(self.learner.failed_step)
        if not failed:
            return
        rows_B = next(rows_B for step, rows_B in self._recent if step == failed)
        told = {"step": failed, "keys": self.loader.samples.keys.take(rows_B)}
        file = self.out / (NOT_FINITE if self.ranks.first else f"not_finite.{self.ranks.rank}.json")
        write_atomic(file, json.dumps(told, indent=1).encode() + b"\n")
        raise RecipeError(
            f"{self.out}: the loss or its gradient is no number at step {failed}; {NOT_FINITE} has its batch",
            hint=f"take a smaller lr (it is {self.config.lr:g}), a longer warm-up or clip_norm: 1",
        )

    def _measure(self, log: Log) -> None:
        """Measure on the first rank, once a step, and keep the best; save before, for it may fail."""
        state, evaluate = self.state, self.method.evaluate
        if evaluate is None or not state.step or state.measured_step == state.step:
            return
        began = time.perf_counter()
        self._save()
        state.measured_step = state.step
        if self.ranks.first:
            with self.learner.measuring() as module:
                state.measured = evaluate(module)
            log.record({"step": state.step, "measured": state.measured})
            log.say(f"step {state.step}: " + ", ".join(f"{n} {v:.4f}" for n, v in state.measured.items()))
            value = next(iter(state.measured.values()), -math.inf)
            if self._measure_steps and value > state.best:
                state.best, state.best_step = value, state.step
                save_weights(self.out / BEST, self.learner.kept.state_dict())
        self.ranks.wait()
        self.meter.leave_out(time.perf_counter() - began)

    def _heed(self, stop: Stop, log: Log) -> None:
        """Save where it is time to, and stop where a signal came; ranks agree on both with a line of the log."""
        if self.ranks.ranks > 1 and self.state.step % self.config.log_steps:
            return
        late = self.ranks.first and time.monotonic() - self._saved_at > self.config.checkpoint_s
        signalled, due = self.ranks.most(stop.heard(), int(late))
        if signalled or due:
            self._save()
            self._saved_at = time.monotonic()
        if signalled:
            log.say(f"stopped at step {self.state.step}; resume with: {command()}")
            raise SystemExit(exit_code(signalled))

    def _save(self, *, alone: bool = False) -> None:
        """Write a checkpoint, if what was learned is sound; `alone` where the other ranks may be gone."""
        if alone and self.ranks.ranks > 1:
            return
        self._check()  # a checkpoint is good, or is not written
        told = torch.stack([self.loss_sum, torch.full_like(self.loss_sum, self.state.loss_steps)])
        loss_sum, loss_steps = self.ranks.sum(told).tolist()
        state = dataclasses.asdict(self.state) | {
            "broken": dict(self.loader.broken.by_row),
            "warned": sorted(self.warned),
            "loss_sum": loss_sum,
            "loss_steps": int(loss_steps),
            "fingerprint": self.ranks.sum_uint64(self.state.fingerprint),
        }
        checkpoints.save(self.out, self.learner, state, self.ranks, keep=self.config.keep_checkpoints)


def _state(out: Path, saved: dict[str, Any]) -> State:
    """Return the state that a checkpoint holds, checked: the folder may be a stranger's."""
    try:
        return TypeAdapter(State).validate_python(saved)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{out}: its last checkpoint cannot be read ({first['loc'][0]}: {first['msg']})",
            hint="delete it, and the run goes on from the one before",
        ) from error


def _opening(method: Method, loader: Loader, loop: Loop) -> str:
    spec = method.spec
    millions = sum(p.numel() for p in method.module.parameters()) / 1e6
    begin = f"from step {loop.state.step} of" if loop.state.step else "for"
    shared = f" x {loop.ranks.ranks}" if loop.ranks.ranks > 1 else ""
    return (
        f"{method.name}: {spec.name}, {spec.stem} stem, {spec.image_size} px, {millions:.1f} M parameters; "
        f"{len(loader)} images of {loader.dataset.name!r}, {begin} {loop.total_steps} steps, "
        f"{loader.device}{shared}"
    )


def _note_broken(loader: Loader, log: Log, out: Path, ranks: Ranks) -> None:
    if not len(loader.broken):
        return
    name = BROKEN if ranks.first else f"broken.{ranks.rank}.json"
    log.say(f"{len(loader.broken)} images could not be read; {out / BROKEN} lists them")
    write_atomic(out / name, json.dumps(loader.broken.reasons, indent=2, sort_keys=True).encode() + b"\n")
