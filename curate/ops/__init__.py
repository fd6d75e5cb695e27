"""The operations: pure functions from rows to rows, one a file; this folder is their registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from curate.recipes.registry import Registry
from curate.recipes.signatures import Signature
from curate.rows.relation import Rows


@dataclass(frozen=True)
class Operation:
    """An operation: its function, and what its signature and docstring say.

    Args:
        function: takes rows and named arguments, returns rows.
        version: goes up when the same arguments give other rows; it is part of a plan's digest.
        streams: whether, by its arguments, it takes rows that are read anew by each query (`Rows.streamed`): it looks
            at each row alone or draws some, and leaves labels and captions as they are. Otherwise it gets the rows in a
            table of DuckDB's.
    """

    function: Callable[..., Rows]
    version: int
    streams: Callable[[Mapping[str, Any]], bool] = lambda _: False

    @property
    def name(self) -> str:
        """The word a recipe uses."""
        return self.function.__name__

    @cached_property
    def signature(self) -> Signature:
        """The options a recipe may give."""
        return Signature(self.function, optional=("seed",))

    @property
    def doc(self) -> str:
        """The docstring, dedented."""
        return inspect.getdoc(self.function) or ""

    def __call__(self, rows: Rows, **arguments: Any) -> Rows:
        return self.function(rows, **self.signature.in_python(arguments))


def op(
    *, version: int, streams: bool | Callable[[Mapping[str, Any]], bool] = False
) -> Callable[[Callable[..., Rows]], Operation]:
    """Make a function an operation of the recipe language, under the function's own name."""
    asks = streams if callable(streams) else lambda _: streams
    return lambda function: Operation(function, version, asks)


_registry = Registry[Operation](__name__, "operation", hint="`curate ops` lists them")
names, find = _registry.names, _registry.find
