"""What the command line calls tasks and runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.models.registry import ModelSpec, build
from train.runs import RUN, Run, open_run, scratch_run
from train.transfer.tasks.datasets import open_tasks

_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL).fullmatch
SCRATCH = "scratch:"
IMAGE_SIZE = 224  # of a model without pre-training, where nothing says another


def named_tasks(text: str, data: Sequence[str | Path] = ()) -> list[Any]:
    """Open a task, under a name of its own where one is given: `pets=folder:/data/pets`.

    Returns:
        as `open_tasks`.

    Raises:
        RecipeError: no such task.
        MissingError: its data is not below one of the folders of `data`.
        DataError: the data is not a task.
    """
    named = _NAMED(text)
    if not named:
        return open_tasks(text, data)
    return [dataclasses.replace(task, name=named[1]) for task in open_tasks(named[2], data)]


def open_subject(text: str, image_size: int | None = None) -> Run:
    """Open a run by its folder; or, by `scratch:MODEL` or `scratch:RUN`, a model without pre-training.

    `scratch:RUN` has the model, stem and image size of that run, so it is what the run is to be compared with.

    Args:
        text: the folder, or `scratch:` and a model's name or a run's folder.
        image_size: of `scratch:MODEL`, in pixels; 224 by default.

    Raises:
        RecipeError: there is no such run or model.
        DataError: the run is damaged.
    """
    if not text.startswith(SCRATCH):
        return open_run(text)
    what = text.removeprefix(SCRATCH)
    if (Path(what) / RUN).exists():
        return scratch_run(open_run(what).spec)
    size = image_size or IMAGE_SIZE
    build(what, num_classes=0, image_size=size)  # says what is wrong with the name, before any work
    return scratch_run(ModelSpec(what, "imagenet", 0, size))
