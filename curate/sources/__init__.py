"""The sources: where rows come from, one a file; this folder is their registry.

A source is described without being read (its columns, and its classes where it lists them), says cheaply
whether it changed, and is indexed into a Parquet file that the build reads.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from curate.errors import CurateError, RecipeError, did_you_mean, located
from curate.io.stores import is_remote
from curate.recipes.registry import Registry
from curate.recipes.signatures import Signature
from curate.rows.manifest import Class
from curate.rows.sql import parquet as read_parquet

Progress = Callable[[int, int | None], None]  # done, of how many (None: not known)


@dataclass(frozen=True)
class Index:
    """A source that has been read.

    Args:
        classes: in label order.
        digest: names the rows and classes.
        rows: how many.
        query: SQL that gives the rows.
        files: what the query reads, on this machine.
        streamed: whether the rows are read as they lie, in any order, and not from an index in key order. Keys may
            then be there twice; of such rows one stays when they are first kept.
        notes: what the ledger should say of the source.
        left_out: reason → files or members that are no row, with up to 100 names each.
        counts: reason → how many were left out for it.
    """

    classes: tuple[Class, ...]
    digest: str
    rows: int
    query: str
    files: tuple[Path, ...]
    streamed: bool = False
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, list[str]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        parquet: Path,
        classes: tuple[Class, ...],
        digest: str,
        rows: int,
        left_out: Mapping[str, list[str]] = MappingProxyType({}),
        counts: Mapping[str, int] = MappingProxyType({}),
    ) -> Index:
        """Return the index that a Parquet file is: the rows, core columns first, in key order."""
        query = f"FROM {read_parquet(parquet)}"
        return cls(classes, digest, rows, query, (parquet,), left_out=left_out, counts=counts)


class Source(ABC):
    """What a recipe's `source:` opens to."""

    root: str  # what `file` is relative to: a folder or a URL
    columns: dict[str, str]  # column → DuckDB type
    classes: tuple[Class, ...] | None = None  # None: known only once it is indexed
    rows: int | None = None  # likewise
    has_bytes: bool = True  # whether its rows' images are somewhere to be read
    why: str | None = None  # what was guessed of how it is to be read

    @property
    def homes(self) -> list[str]:
        """Where it lies: what a build must not replace."""
        return [self.root]

    @property
    def outside(self) -> list[str]:
        """Where images lie that nobody who wrote the recipe named: see `contracts.outside`."""
        return []

    @abstractmethod
    def fingerprint(self) -> str:
        """Return what changes when the source does; cheap, and only comparable on this machine."""

    @abstractmethod
    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Return the rows, from the cache where the fingerprint is that of the last time."""


_registry = Registry[Callable[..., Source]](__name__, "source")
names, opener = _registry.names, _registry.find


def doc(name: str) -> str:
    """Return a source's docstring, dedented."""
    return inspect.getdoc(opener(name)) or ""


def open_source(
    spec: Mapping[str, Any], *, where: str = "source", base: Path = Path(), given: Collection[str] = ()
) -> Source:
    """Open what a recipe's `source:` says: `{folder: PATH, …}`; the first option stands beside the name.

    Args:
        spec: the YAML mapping.
        where: its place, for messages.
        base: relative paths are taken from here;
        given: but those that begin with one of these, which a user gave, from the working directory.

    Raises:
        RecipeError: an unknown source or option, a wrong type, or a path with nothing there.
    """
    named = [name for name in spec if name in names()]
    if len(named) != 1:
        first = str(next(iter(spec), ""))
        raise RecipeError(
            f"{where}: no source {first!r}" if not named else f"{where}: takes one source, got {named}",
            hint=did_you_mean(first, names()) or f"there are {', '.join(names())}",
        )
    name = named[0]
    function = opener(name)
    signature = Signature(function)
    options = {k: v for k, v in spec.items() if k != name}
    head = spec[name]
    if isinstance(head, Mapping):
        options |= head
    elif head is not None:
        options[signature.names[0]] = head
    arguments = signature.bind(options, where=f"{where} ({name})")
    if "parts" in arguments:
        places = {part: f"{where}, {part}" for part in arguments["parts"]}
        opened = {
            p: open_source(s, where=places[p], base=base, given=given) for p, s in arguments["parts"].items()
        }
        arguments["parts"] = opened
    path = arguments.get("path")
    if path is not None:
        named = path if isinstance(path, list) else [path]
        found = [p if is_remote(p) else str(placed(p, base, given)) for p in named]
        arguments["path"] = found if isinstance(path, list) else found[0]
    try:
        return function(**signature.in_python(arguments))
    except CurateError as error:
        raise located(error, where) from error


def placed(path: str, base: Path, given: Collection[str]) -> Path:
    """Return where a path of a recipe leads: from the recipe's folder, or from here where a user gave it."""
    ours = any(path == g or path.startswith(g.rstrip("/") + "/") for g in given)
    return (Path() if ours else base) / Path(path).expanduser()
