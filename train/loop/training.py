"""The training loop. A method brings a module and its loss, `TrainStep` takes the steps, and the rest is here.

The same command resumes a run that was stopped, and the run ends as if it had not been stopped: order and crops follow
from the step, and a checkpoint holds the weights, the optimiser and torch's random state. On a GPU this holds as far as
its kernels are deterministic (see `deterministic`).

Several processes, started by torchrun or srun, share each batch; rank 0 writes. The ranks agree on what all must do
together, such as stopping, whenever a line of the log is written.
"""

from __future__ import annotations

import dataclasses
import json
import math
from contextlib import nullcontext
from pathlib import Path

from curate.io.files import write_atomic
from train.data.loader import Loader
from train.data.provenance import DatasetUsed
from train.loop import checkpoints
from train.loop.checkpoints import Plan
from train.loop.config import LoopConfig
from train.loop.determinism import kernel_settings, nondeterminism_note
from train.loop.distributed import Distributed
from train.loop.dry_run import dry_run
from train.loop.loop import NOT_FINITE, Loop
from train.loop.method import Method
from train.loop.metrics.log import Log
from train.runs import Best, Machine, Run, finish_run

BROKEN = "broken.json"  # key -> reason of every image that could not be read


def fit(
    method: Method,
    loader: Loader,
    config: LoopConfig,
    out: Path,
    plan: Plan,
    *,
    distributed: Distributed | None = None,
    quiet: bool = False,
) -> Run:
    """Train, from the start or from the last checkpoint, and return the finished run.

    Raises:
        RecipeError: the loss is no longer a number, or the GPU's memory is too small.
        DataError: too many images cannot be read.
        MissingError: the disk is full; the checkpoint before stands.
        SystemExit: a signal came, and a checkpoint was written first; or the run was dry.
    """
    distributed = distributed or Distributed()
    if config.dry_run:
        with kernel_settings(config.deterministic) as warned:
            dry_run(method, loader, config, distributed, warned)
        raise SystemExit(0)
    with (
        checkpoints.held(out) if distributed.first else nullcontext(),
        kernel_settings(config.deterministic) as warned,
    ):
        distributed.barrier()
        loop = Loop(method, loader, config, out, distributed, warned)
        if checkpoints.changes(out, plan):  # adopted: what was best, and what was broken, was so elsewhere
            loop.state.best, loop.state.best_step, loop.state.broken = -math.inf, 0, {}
        loader.unreadable.note(loop.state.broken)
        distributed.barrier()
        if distributed.first:
            checkpoints.begin(out, plan)
        return _finished(loop, quiet)


def _finished(loop: Loop, quiet: bool) -> Run:
    method, loader, config = loop.method, loop.loader, loop.config
    out, distributed = loop.out, loop.distributed
    with Log(out, config, quiet=quiet or not distributed.first, writes=distributed.first) as log:
        log.say(_opening(method, loader, loop))
        if loader.cache != "none":
            log.phase("decode", len(loader))
            loader.prepare(log.advance)
        loop.run(log)
        _note_unreadable(loader, log, out, distributed)
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
            "samples_fingerprint": f"{distributed.sum_uint64(state.fingerprint):016x}",
            "seconds": round(state.seconds, 3),
            "metrics": metrics,
            "best": Best(step=state.best_step, value=state.best) if state.best_step else None,
            "flops_per_sample": state.flops_per_sample,
            "ranks": distributed.world_size,
            "nondeterministic": sorted(loop.warned),
            "machine": Machine.of_device(str(loader.device)),
        }
        run = finish_run(
            out,
            info,
            loop.train_step.measured_module.state_dict(),
            writes=distributed.first,
            wait=distributed.barrier,
        )
        log.say(f"{out}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        if loop.warned:
            log.say(f"{out}: {nondeterminism_note(loop.warned)}")
    if distributed.first:
        checkpoints.clear(out)
        (out / NOT_FINITE).unlink(missing_ok=True)  # of an attempt with other options
    return run


def _opening(method: Method, loader: Loader, loop: Loop) -> str:
    spec = method.spec
    millions = sum(p.numel() for p in method.module.parameters()) / 1e6
    begin = f"from step {loop.state.step} of" if loop.state.step else "for"
    shared = f" x {loop.distributed.world_size}" if loop.distributed.world_size > 1 else ""
    return (
        f"{method.name}: {spec.name}, {spec.stem} stem, {spec.image_size} px, {millions:.1f} M parameters; "
        f"{len(loader)} images of {loader.dataset.name!r}, {begin} {loop.total_steps} steps, "
        f"{loader.device}{shared}"
    )


def _note_unreadable(loader: Loader, log: Log, out: Path, distributed: Distributed) -> None:
    if not len(loader.unreadable):
        return
    name = BROKEN if distributed.first else f"broken.{distributed.rank}.json"
    log.say(f"{len(loader.unreadable)} images could not be read; {out / BROKEN} lists them")
    write_atomic(out / name, json.dumps(loader.unreadable.reasons, indent=2, sort_keys=True).encode() + b"\n")
