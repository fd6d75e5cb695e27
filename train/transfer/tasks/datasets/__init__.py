"""The task registry: a file for each dataset, with `TASKS`, a list of `TaskInfo`.

A `TaskInfo` says what the task is, where its data comes from, and what opens it. To add a task, add a line there; to
add a dataset, add a file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import RecipeError, did_you_mean
from curate.recipes.registry import Registry
from train.transfer.tasks.task_info import TaskInfo, TaskRequest

_RENAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL).fullmatch


def task_infos() -> dict[str, TaskInfo]:
    """Return all tasks by name."""
    return {info.name: info for module in Registry(__name__).modules() for info in module.TASKS}


def find_task_info(name: str) -> TaskInfo:
    """Return the info of a task by name, whatever argument follows the name.

    Raises:
        RecipeError: no such task.
    """
    first, known = name.partition(":")[0], task_infos()
    if first not in known:
        usages = ", ".join(info.usage for info in known.values())
        near = did_you_mean(first, known)
        raise RecipeError(f"no task {name!r}", hint=f"{near + '; ' if near else ''}there are {usages}")
    return known[first]


def describe_task(info: TaskInfo) -> dict[str, str]:
    """Return what is known of a task, as `curate tasks` shows it."""
    return {
        "task": info.usage,
        "what": info.about,
        "classes / train / test": info.size,
        "split": info.splits,
        "metric": info.metric,
        "kind": info.kind,
        "data": info.get,
        "source": info.source,
    }


def open_tasks(name: str, data: Sequence[str | Path] = ()) -> list[Any]:
    """Open a task by name: `dtd`; `folder:PATH`, with an argument; `pets=folder:PATH`, under a name of its own.

    Args:
        name: as `curate tasks` lists them.
        data: folders with what was downloaded.

    Returns:
        Task or DetectionTask; several where it has official partitions and all of them were asked for.

    Raises:
        RecipeError: no such task, or its argument is missing or wrong.
        MissingError: its data is not there.
        DataError: the data is not that task.
    """
    match = _RENAMED(name)
    if match:
        return [dataclasses.replace(task, name=match[1]) for task in open_tasks(match[2], data)]
    info = find_task_info(name)
    _, colon, argument = name.partition(":")
    folders = tuple(Path(folder).expanduser() for folder in data)
    return list(info.open(TaskRequest(info, argument if colon else None, folders)))
