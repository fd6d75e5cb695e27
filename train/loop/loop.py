"""The steps of a run: learn, log, measure, save, stop."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import deque
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.errors import CurateError, RecipeError
from curate.io.files import write_atomic
from train.data.batch import Batch
from train.data.loader import Loader
from train.loop import checkpoints
from train.loop.config import LoopConfig
from train.loop.distributed import Distributed
from train.loop.dry_run import training_flops
from train.loop.method import Method
from train.loop.metrics.log import Log
from train.loop.metrics.profiler import Profiler
from train.loop.metrics.throughput import Meter
from train.loop.optim.train_step import TrainStep
from train.loop.signals import Stop, command, exit_code
from train.loop.state import LossSum, State
from train.runs import BEST, save_weights

NOT_FINITE = "not_finite.json"  # the step whose loss was no number, and the keys of its batch


class Loop:
    """The steps of one run. Use `fit`."""

    def __init__(
        self,
        method: Method,
        loader: Loader,
        config: LoopConfig,
        out: Path,
        distributed: Distributed,
        warned: set[str],
    ) -> None:
        self.method, self.loader, self.config = method, loader, config
        self.out, self.distributed = out, distributed
        per_epoch = loader.steps_per_epoch
        self.total_steps = config.total_steps(per_epoch)
        torch.manual_seed(config.seed + distributed.rank)  # for dropout and the like
        self.train_step = TrainStep(
            method,
            config,
            distributed,
            loader.device,
            total_steps=self.total_steps,
            steps_per_epoch=per_epoch,
        )
        self.state = State.of(out, checkpoints.restore(out, self.train_step, distributed))
        if self.state.step > self.total_steps:
            raise RecipeError(
                f"{out}: its checkpoint is at step {self.state.step}, and this plan has {self.total_steps}",
                hint="take more epochs, or another folder",
            )
        self.warned = warned  # filled while the steps are taken
        self.warned.update(self.state.warned)
        if not distributed.first:  # what was counted over all ranks is the first one's to go on with
            self.state = dataclasses.replace(self.state, loss_sum=0.0, loss_steps=0, fingerprint=0)
        self.losses = LossSum(self.state, loader.device)
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
            Profiler(config.profile, self.out) if config.profile and self.distributed.first else nullcontext()
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
                self._step(batch)
                self.meter.add(len(batch) * self.distributed.world_size)
                state.seconds = time.monotonic() - began
                if profiled:
                    profiled.step()
                if state.step % config.log_steps == 0 or state.step == self.total_steps:
                    self._log(log, batch.epoch)
                self._save_or_stop(stop, log)
            self._measure(log)

    def _step(self, batch: Batch) -> None:
        state = self.state
        if len(batch):  # else all its images are unreadable, and only the count goes on
            prepared = self.train_step.prepare_batch(batch)
            if not self.losses.steps and state.flops_per_sample is None:
                state.flops_per_sample = self.meter.flops_per_sample = training_flops(self.method, prepared)
            self.losses.add(self.train_step.step(prepared, state.step))
        state.step += 1
        state.samples += len(batch) * self.distributed.world_size
        state.fingerprint = (state.fingerprint + batch.fingerprint) % 2**64
        self._recent.append((state.step, batch.rows))

    def _log(self, log: Log, epoch: int) -> None:
        """Write a line of the log; only here does the host wait for the GPU."""
        self._check_finite()
        state = self.state
        loss_sum, loss_steps = self.losses.over_ranks(self.distributed)
        if loss_steps:
            state.loss = loss_sum / loss_steps
        self.losses.reset()
        record: dict[str, Any] = {"step": state.step, "epoch": epoch, "loss": state.loss}
        record |= {"lr": self.train_step.lr} | self.meter.read(self.distributed.world_size)
        if self.method.watched is not None:
            watched = {name: value.detach().double() for name, value in self.method.watched().items()}
            summed = self.distributed.sum(torch.stack([*watched.values()])).tolist() if watched else []
            record |= {
                n: round(v / self.distributed.world_size, 6) for n, v in zip(watched, summed, strict=True)
            }
        if len(self.loader.unreadable):
            record["broken"] = len(self.loader.unreadable)
        log.step(record | {"samples_fingerprint": f"{self.distributed.sum_uint64(state.fingerprint):016x}"})

    def _check_finite(self) -> None:
        """Stop the run if a loss or a gradient was no number, and name the batch."""
        failed = self.distributed.first_failed(self.train_step.failed_step)
        if not failed:
            return
        rows_B = next(rows_B for step, rows_B in self._recent if step == failed)
        failure = {"step": failed, "keys": self.loader.samples.keys.take(rows_B)}
        file = self.out / (
            NOT_FINITE if self.distributed.first else f"not_finite.{self.distributed.rank}.json"
        )
        write_atomic(file, json.dumps(failure, indent=1).encode() + b"\n")
        raise RecipeError(
            f"{self.out}: the loss or its gradient is no number at step {failed}; {NOT_FINITE} has its batch",
            hint=f"take a smaller lr (it is {self.config.lr:g}), a longer warm-up or clip_norm: 1",
        )

    def _measure(self, log: Log) -> None:
        """Measure on rank 0, once a step, and keep the best; save before, because measuring may fail."""
        state, evaluate = self.state, self.method.evaluate
        if evaluate is None or not state.step or state.measured_step == state.step:
            return
        began = time.perf_counter()
        self._save()
        state.measured_step = state.step
        if self.distributed.first:
            with self.train_step.measuring() as module:
                state.measured = evaluate(module)
            log.record({"step": state.step, "measured": state.measured})
            log.say(f"step {state.step}: " + ", ".join(f"{n} {v:.4f}" for n, v in state.measured.items()))
            value = next(iter(state.measured.values()), -math.inf)
            if self._measure_steps and value > state.best:
                state.best, state.best_step = value, state.step
                save_weights(self.out / BEST, self.train_step.measured_module.state_dict())
        self.distributed.barrier()
        self.meter.leave_out(time.perf_counter() - began)

    def _save_or_stop(self, stop: Stop, log: Log) -> None:
        """Save if it is time to, and stop if a signal came; ranks agree on both with a line of the log."""
        if self.distributed.world_size > 1 and self.state.step % self.config.log_steps:
            return
        late = self.distributed.first and time.monotonic() - self._saved_at > self.config.checkpoint_s
        signalled, due = self.distributed.max(stop.heard(), int(late))
        if signalled or due:
            self._save()
            self._saved_at = time.monotonic()
        if signalled:
            log.say(f"stopped at step {self.state.step}; resume with: {command()}")
            raise SystemExit(exit_code(signalled))

    def _save(self, *, alone: bool = False) -> None:
        """Write a checkpoint if the weights are finite; with `alone`, the other ranks may be gone."""
        if alone and self.distributed.world_size > 1:
            return
        self._check_finite()  # a checkpoint is good, or is not written
        loss_sum, loss_steps = self.losses.over_ranks(self.distributed)
        state = dataclasses.asdict(self.state) | {
            "broken": dict(self.loader.unreadable.by_row),
            "warned": sorted(self.warned),
            "loss_sum": loss_sum,
            "loss_steps": loss_steps,
            "fingerprint": self.distributed.sum_uint64(self.state.fingerprint),
        }
        checkpoints.save(
            self.out, self.train_step, state, self.distributed, keep=self.config.keep_checkpoints
        )
