"""The families of tasks, one a file; this folder is their registry.

A family's file has `TASKS`, a list of `Listing`: what each task is, where its data comes from, and what opens it. To
add a task, add a line there; to add a family, add a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.transfer.tasks.listing import Listing


def listed() -> list[Listing]:
    """Return the tasks of all families, those that need no download first."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [task for module in modules for task in module.TASKS]
