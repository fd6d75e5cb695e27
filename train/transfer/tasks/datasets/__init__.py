"""The families of tasks, one a file; this folder is their registry.

A family's file has `TASKS`, a list of `Listing`: what each task is, where its data comes from, and what opens it. To
add a task, add a line there; to add a family, add a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate.errors import RecipeError, did_you_mean
from curate.recipes.registry import Registry
from train.transfer.tasks.listing import Listing, Request


def listed() -> list[Listing]:
    """Return the tasks of all families, those that need no download first."""
    return [task for module in Registry(__name__).modules() for task in module.TASKS]


def listings() -> dict[str, Listing]:
    """Return all tasks by name."""
    return {one.name: one for one in listed()}


def one_listing(name: str) -> Listing:
    """Return the task of a name, whatever argument follows it.

    Raises:
        RecipeError: no such task.
    """
    first, known = name.partition(":")[0], listings()
    if first not in known:
        usages = ", ".join(one.usage for one in known.values())
        near = did_you_mean(first, known)
        raise RecipeError(f"no task {name!r}", hint=f"{near + '; ' if near else ''}there are {usages}")
    return known[first]


def facts(listing: Listing) -> dict[str, str]:
    """Return what is to be known of a task."""
    return {
        "task": listing.usage,
        "what": listing.about,
        "classes / train / test": listing.size,
        "split": listing.splits,
        "metric": listing.metric,
        "kind": listing.kind,
        "data": listing.get,
        "source": listing.source,
    }


def open_tasks(name: str, data: Sequence[str | Path] = ()) -> list[Any]:
    """Open a task by name: `dtd`, or with an argument where it takes one, `folder:PATH`.

    Args:
        name: as `curate tasks` lists them.
        data: folders that hold what was downloaded.

    Returns:
        Task or DetectionTask; several where it has official partitions and all of them were asked for.

    Raises:
        RecipeError: no such task, or its argument is missing or wrong.
        MissingError: its data is not there.
        DataError: the data is not that task.
    """
    listing = one_listing(name)
    _, colon, argument = name.partition(":")
    places = tuple(Path(one).expanduser() for one in data)
    return list(listing.open(Request(listing, argument if colon else None, places)))
