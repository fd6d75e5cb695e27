"""A folder as a list: each file adds an entry, so that to add one is to add a file."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from curate.errors import reject_unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """The files of a package, each of which defines an object of its own name; those with `_` in front are helpers.

    Nothing is imported before it is asked for.

    Args:
        package: its name, as `__name__` says it.
        kind: what an entry is called in messages.
        hint: what to do where a name is unknown and none is near; by default the list of all names.
    """

    def __init__(self, package: str, kind: str = "entry", *, hint: str | None = None) -> None:
        self._package, self._kind, self._hint = package, kind, hint

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        folders = sys.modules[self._package].__path__
        return sorted(m.name for m in pkgutil.iter_modules(folders) if not m.name.startswith("_"))

    def find(self, name: str, *, where: str = "") -> T:
        """Return an entry by name.

        Args:
            where: what an error begins with.

        Raises:
            RecipeError: there is none of this name.
        """
        message = f"{where}{': ' if where else ''}no {self._kind} {name!r}"
        reject_unknown(name, self.names(), message, hint=self._hint)
        return cast(T, getattr(self._module(name), name))

    def modules(self) -> Iterator[Any]:
        """Import the files one by one and yield their modules, in the order of their names."""
        return map(self._module, self.names())

    def _module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self._package}.{name}")
