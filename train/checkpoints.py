"""What an unfinished run leaves behind, and how it goes on: `plan.json`, `checkpoints/step-000000123.pt`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curate.errors import DataError, RecipeError
from curate.files import write_atomic
from train.runs import CHECKPOINTS, METRICS, PLAN, RUN, Run, open_run

KEEP = 2  # checkpoints; the older one for when the disk loses the newer

Plan = dict[str, Any]  # all that decides a run's outcome: method, config, digests of its datasets


def finished(path: Path, plan: Plan) -> Run | None:
    """Return the run at `path` if this plan is finished there, None if it is to begin or to go on.

    Raises:
        RecipeError: the folder holds a run of another plan, or something that is no run.
    """
    if (path / PLAN).exists():
        there = json.loads((path / PLAN).read_text())
        differences = _differences(there, json.loads(json.dumps(plan)))
        if differences and ((path / RUN).exists() or _saved(path)):
            raise RecipeError(
                f"{path}: holds a run of another plan ({'; '.join(differences)})",
                hint="take another folder, or delete this one",
            )
        return open_run(path) if (path / RUN).exists() else None
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RecipeError(f"{path}: exists and is not a run", hint="name a new folder")
    return None


def begin(path: Path, plan: Plan) -> None:
    """Make the run's folder and note what is to be done in it."""
    (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    write_atomic(path / PLAN, json.dumps(plan, indent=2).encode() + b"\n")


def save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Write a checkpoint, and drop all but the last two.

    Args:
        path: the run's folder.
        module: what learns.
        optimizer: its optimiser.
        state: what else the loop needs to go on; `step` is how many are done.
    """
    stream = io.BytesIO()
    cuda = [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else []
    content = {
        "state": state,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": {"cpu": torch.get_rng_state(), "cuda": cuda},
    }
    torch.save(content, stream)
    write_atomic(path / CHECKPOINTS / f"step-{state['step']:09d}.pt", stream.getvalue())
    for old in _saved(path)[:-KEEP]:
        old.unlink()


def restore(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load the last checkpoint, torch's random state included, and return its `state`; {} for none.

    The metrics that were logged after it are dropped: they will be logged again.

    Raises:
        DataError: the checkpoint cannot be read.
    """
    saved = _saved(path)
    if not saved:
        _cut_metrics(path, 0)
        return {}
    device = next(module.parameters()).device
    try:
        content = torch.load(saved[-1], map_location="cpu", weights_only=True)
        module.load_state_dict(content["module"])
        optimizer.load_state_dict(content["optimizer"])
        torch.set_rng_state(content["random"]["cpu"])
        if device.type == "cuda" and content["random"]["cuda"]:
            torch.cuda.set_rng_state_all(content["random"]["cuda"][: torch.cuda.device_count()])
    except Exception as error:  # torch raises what a damaged pickle leads it to
        raise DataError(
            f"{saved[-1]}: cannot be read ({error})",
            hint="delete it, and the run goes on from the one before",
        ) from error
    _cut_metrics(path, content["state"]["step"])
    return content["state"]


def clear(path: Path) -> None:
    """Drop the checkpoints of a finished run: they are three times its weights, and nothing needs them."""
    for saved in _saved(path):
        saved.unlink()
    (path / CHECKPOINTS).rmdir()


def _saved(path: Path) -> list[Path]:
    return sorted((path / CHECKPOINTS).glob("step-*.pt"))


def _cut_metrics(path: Path, step: int) -> None:
    try:
        lines = (path / METRICS).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return
    whole = [line for line in lines if line.endswith("\n")]  # the last may be half written
    write_atomic(path / METRICS, "".join(line for line in whole if json.loads(line)["step"] <= step).encode())


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Return "lr: 0.1, now 0.2" for each leaf that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        found = []
        for key in {**there, **here}:
            found += _differences(there.get(key), here.get(key), key)
        return found
    return [] if there == here else [f"{name}: {there}, now {here}"]
