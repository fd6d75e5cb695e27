"""What an unfinished run leaves behind, and how it goes on.

`plan.json` says what was asked. A checkpoint is two files: `checkpoints/step-000000123.safetensors` has the weights,
for any reader; `step-000000123.pt`, written after it, has the rest: optimiser, scaler, average, random state, and how
far it is.
"""

from __future__ import annotations

import fcntl
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curate.errors import CurateError, DataError, RecipeError
from curate.io.files import is_unfinished, write_atomic
from train.loop.distributed import Ranks
from train.loop.optim.train_step import Learner
from train.runs import BEST, CHECKPOINTS, METRICS, PLAN, RUN, Run, open_run, save_weights, unwritten_told

LOCK = "lock"

Plan = dict[str, Any]  # all that decides a run's outcome: method, config, digests of its datasets


def finished(path: Path, plan: Plan, *, adopt: bool = False) -> Run | None:
    """Return the run at `path` if this plan is finished there, None if it is to begin or to go on.

    Args:
        path: the run's folder.
        plan: what is asked now.
        adopt: whether an unfinished run of another plan may be gone on with.

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


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Make the run's folder, and hold it against other processes.

    Raises:
        RecipeError: another process trains here.
        MissingError: the folder cannot be made.
    """
    with unwritten_told(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / LOCK, "w")  # noqa: SIM115 - held until the end
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecipeError(
                f"{path}: another process is training here", hint="wait for it, or take another folder"
            ) from None
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)
            if not any(path.iterdir()):
                path.rmdir()


def begin(path: Path, plan: Plan) -> None:
    """Note what is to be done in the run's folder; what a kill left of a file and another plan's measurements go.

    Raises:
        MissingError: the folder cannot be written.
    """
    with unwritten_told(path):
        for left in filter(lambda file: is_unfinished(file.name), path.rglob(".*")):
            left.unlink()
        if changes(path, plan):
            (path / BEST).unlink(missing_ok=True)
        write_atomic(path / PLAN, json.dumps(plan, indent=2).encode() + b"\n")
        (path / CHECKPOINTS).mkdir(exist_ok=True)


def changes(path: Path, plan: Plan) -> list[str]:
    """Return what differs between the plan in a run's folder and another; [] where there is none."""
    if not (path / PLAN).exists():
        return []
    return _differences(json.loads((path / PLAN).read_text()), json.loads(json.dumps(plan)))


def save(path: Path, learner: Learner, state: dict[str, Any], ranks: Ranks, *, keep: int) -> None:
    """Write a checkpoint, and drop all but the last few. Every rank calls it; the first writes.

    Args:
        path: the run's folder.
        learner: what learns.
        state: what else the loop needs to go on; `step` is how many are done.
        ranks: their random states are kept.
        keep: how many.

    Raises:
        MissingError: the disk is full; the checkpoints before stand.
    """
    random = {"cpu": ranks.collected(torch.get_rng_state())}
    if learner.device.type == "cuda":
        random["cuda"] = ranks.collected(torch.cuda.get_rng_state(learner.device))
    if not ranks.first:
        return
    stream = io.BytesIO()
    rest = {"state": state, "learner": learner.state()}
    torch.save(
        rest | {"random": {name: [one.cpu() for one in all_] for name, all_ in random.items()}}, stream
    )
    file = path / CHECKPOINTS / f"step-{state['step']:09d}.pt"
    save_weights(file.with_suffix(".safetensors"), learner.method.module.state_dict())
    with unwritten_told(file):
        write_atomic(file, stream.getvalue())
    for old in _saved(path)[:-keep]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def restore(path: Path, learner: Learner, ranks: Ranks) -> dict[str, Any]:
    """Load the last checkpoint, torch's random state included, and return its `state`; {} for none.

    The metrics that were logged after it are dropped: they will be logged again.

    Raises:
        DataError: the checkpoint cannot be read, or is of another model.
    """
    from safetensors.torch import load_file

    saved = _saved(path)
    if not saved:
        if ranks.first:
            _cut_metrics(path, 0)
        return {}
    file, module = saved[-1], learner.method.module
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        weights = load_file(file.with_suffix(".safetensors"))
        random = {
            name: all_[ranks.rank] for name, all_ in content["random"].items() if ranks.rank < len(all_)
        }
        if unfit := _unfit(weights, module.state_dict()):
            raise DataError(
                f"{file.with_suffix('.safetensors')}: weights of another model ({unfit})",
                hint="name the model that this run began with",
            )
        state, step = content["state"], int(content["state"]["step"])
        module.load_state_dict(weights)
        learner.load_state(content["learner"])
    except CurateError:
        raise
    except Exception as error:  # torch raises what a damaged pickle leads it to
        raise DataError(
            f"{file}: cannot be read ({error})",
            hint="delete it, and the run goes on from the one before",
        ) from error
    if "cpu" in random:
        torch.set_rng_state(random["cpu"])
    if learner.device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], learner.device)
    if ranks.first:
        _cut_metrics(path, step)
    return state


def clear(path: Path) -> None:
    """Drop the checkpoints of a finished run: they are three times its weights, and nothing needs them."""
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


def _unfit(there: dict[str, Tensor], here: dict[str, Tensor]) -> str:
    """Say what is the first to differ between two sets of weights, in names or shapes; "" for nothing."""
    for name in sorted({**there, **here}):
        shapes = [tuple(one[name].shape) if name in one else "missing" for one in (there, here)]
        if shapes[0] != shapes[1]:
            return f"{name}: {shapes[0]}, not {shapes[1]}"
    return ""


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Return "lr: 0.1, now 0.2" for each leaf that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for key in {**there, **here}:
            found += _differences(there.get(key), here.get(key), key)
        return found
    return [] if there == here else [f"{name}: {there}, now {here}"]
