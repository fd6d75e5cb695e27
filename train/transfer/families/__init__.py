"""The families of tasks, one a file; this folder is their registry.

A family's file has `USAGE` (how a task of it is named), a docstring whose first line says what it is, and
`load(argument)`, which takes what stands after the colon (None without) and returns a Task.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.transfer.tasks import Task


def names() -> list[str]:
    """Return the names of all families."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def usages() -> dict[str, str]:
    """Return how the tasks of each family are named, and what they are."""
    modules = map(_module, names())
    return {m.USAGE: (m.__doc__ or "").partition("\n")[0].rstrip(".") for m in modules}


def load(family: str, argument: str | None) -> Task:
    """Open a task of a family."""
    return _module(family).load(argument)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
