"""The checkpoints of an unfinished run, and how it resumes.

`plan.json` records the options and data of the run. A checkpoint is two files: `checkpoints/step-000000123.safetensors`
has the weights, for any reader; `step-000000123.pt`, written after it, has the rest: optimiser, scaler, average, random
state, and the state of the loop.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curate.errors import CurateError, DataError, MissingError, RecipeError
from curate.io.files import is_unfinished, write_atomic
from curate.io.working import LOCK, WorkingFolder
from train.loop.distributed import Distributed
from train.loop.optim.train_step import TrainStep
from train.runs import (
    BEST,
    CHECKPOINTS,
    METRICS,
    PLAN,
    RUN,
    Run,
    located_write_errors,
    open_run,
    save_weights,
)

Plan = dict[str, Any]  # everything that decides a run's result: method, options, digests of its datasets


def finished(path: Path, plan: Plan, *, adopt: bool = False) -> Run | None:
    """Return the run at `path` if this plan is finished there; None if it is to begin or to resume.

    Args:
        path: the run's folder.
        plan: of the present command.
        adopt: whether to resume an unfinished run of another plan.

    Raises:
        RecipeError: the folder holds a run of another plan, or something that is no run.
    """
    if (path / PLAN).exists():
        differences = changes(path, plan)
        done = (path / RUN).exists()
        if differences and (done or (_saved(path) and not adopt)):
            more = "" if done else "; --adopt goes on from its checkpoint all the same"
            raise RecipeError(
                f"{path}: holds a run of another plan ({'; '.join(differences)})",
                hint=f"take another folder, or delete this one{more}",
            )
        if done and (path / CHECKPOINTS).exists():  # it was killed before it could clear them
            clear(path)
        return open_run(path) if done else None
    if path.exists() and (
        not path.is_dir() or any(e.name != LOCK and not is_unfinished(e.name) for e in path.iterdir())
    ):
        raise RecipeError(f"{path}: exists and is not a run", hint="name a new folder")
    return None


def held(path: Path) -> WorkingFolder:
    """Return the run's folder as a context, which makes it and holds it against other processes.

    Entering it raises a RecipeError where another process trains here, and a MissingError where it cannot be made.
    """
    busy = f"{path}: another process is training here"
    return WorkingFolder(path, busy=busy, keep=True, unwritable=MissingError)


def begin(path: Path, plan: Plan) -> None:
    """Write the plan into the run's folder; remove the best weights of another plan.

    Raises:
        MissingError: the folder cannot be written.
    """
    with located_write_errors(path):
        if changes(path, plan):
            (path / BEST).unlink(missing_ok=True)
        write_atomic(path / PLAN, json.dumps(plan, indent=2).encode() + b"\n")
        (path / CHECKPOINTS).mkdir(exist_ok=True)


def changes(path: Path, plan: Plan) -> list[str]:
    """Return the differences between the plan in a run's folder and another; [] where it has none."""
    if not (path / PLAN).exists():
        return []
    return _differences(json.loads((path / PLAN).read_text()), json.loads(json.dumps(plan)))


def save(
    path: Path, train_step: TrainStep, state: dict[str, Any], distributed: Distributed, *, keep: int
) -> None:
    """Write a checkpoint, and drop all but the last few. Every rank calls it; the first writes.

    Args:
        path: the run's folder.
        train_step: the module and its optimiser.
        state: of the loop; `step` is how many steps are done.
        distributed: the ranks, whose random states are saved.
        keep: how many checkpoints stay.

    Raises:
        MissingError: the disk is full; the checkpoints before stand.
    """
    random = {"cpu": distributed.all_gather(torch.get_rng_state())}
    if train_step.device.type == "cuda":
        random["cuda"] = distributed.all_gather(torch.cuda.get_rng_state(train_step.device))
    if not distributed.first:
        return
    stream = io.BytesIO()
    rest = {"state": state, "learner": train_step.state()}
    torch.save(
        rest | {"random": {name: [rng.cpu() for rng in states] for name, states in random.items()}}, stream
    )
    file = path / CHECKPOINTS / f"step-{state['step']:09d}.pt"
    save_weights(file.with_suffix(".safetensors"), train_step.method.module.state_dict())
    with located_write_errors(file):
        write_atomic(file, stream.getvalue())
    for old in _saved(path)[:-keep]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def restore(path: Path, train_step: TrainStep, distributed: Distributed) -> dict[str, Any]:
    """Load the last checkpoint, torch's random state included, and return its `state`; {} for none.

    Lines of metrics after the checkpoint are dropped: the run logs them again.

    Raises:
        DataError: the checkpoint cannot be read, or is of another model.
    """
    from safetensors.torch import load_file

    saved = _saved(path)
    if not saved:
        if distributed.first:
            _cut_metrics(path, 0)
        return {}
    file, module = saved[-1], train_step.method.module
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        weights = load_file(file.with_suffix(".safetensors"))
        random = {
            name: all_[distributed.rank]
            for name, all_ in content["random"].items()
            if distributed.rank < len(all_)
        }
        if unfit := _unfit(weights, module.state_dict()):
            raise DataError(
                f"{file.with_suffix('.safetensors')}: weights of another model ({unfit})",
                hint="name the model that this run began with",
            )
        state, step = content["state"], int(content["state"]["step"])
        module.load_state_dict(weights)
        train_step.load_state(content["learner"])
    except CurateError:
        raise
    except Exception as error:  # torch raises what a damaged pickle leads it to
        raise DataError(
            f"{file}: cannot be read ({error})", hint="delete it, and the run goes on from the one before"
        ) from error
    if "cpu" in random:
        torch.set_rng_state(random["cpu"])
    if train_step.device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], train_step.device)
    if distributed.first:
        _cut_metrics(path, step)
    return state


def clear(path: Path) -> None:
    """Drop the checkpoints of a finished run, which take three times the space of its weights."""
    shutil.rmtree(path / CHECKPOINTS, ignore_errors=True)


def _saved(path: Path) -> list[Path]:
    return sorted((path / CHECKPOINTS).glob("step-*.pt"))


def _cut_metrics(path: Path, step: int) -> None:
    try:
        lines = (path / METRICS).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return
    whole = [line for line in lines if line.endswith("\n")]  # the last may be half written
    write_atomic(path / METRICS, "".join(line for line in whole if json.loads(line)["step"] <= step).encode())


def _unfit(saved: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """Describe the first difference in names or shapes between two sets of weights; "" for none."""
    for name in sorted({**saved, **own}):
        shapes = [tuple(state[name].shape) if name in state else "missing" for state in (saved, own)]
        if shapes[0] != shapes[1]:
            return f"{name}: {shapes[0]}, not {shapes[1]}"
    return ""


def _differences(saved: Any, asked: Any, name: str = "") -> list[str]:
    """Return "lr: 0.1, now 0.2" for each leaf that differs."""
    if isinstance(saved, dict) and isinstance(asked, dict):
        return [d for key in {**saved, **asked} for d in _differences(saved.get(key), asked.get(key), key)]
    return [] if saved == asked else [f"{name}: {saved}, now {asked}"]
