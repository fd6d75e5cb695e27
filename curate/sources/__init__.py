"""The sources: where rows come from, one a file; this folder is their registry.

A source is described before it is read (its columns, and its classes if it lists them), tells cheaply whether it
changed, and is indexed into a Parquet file that the build reads.
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
        digest: of the rows and classes.
        rows: their number.
        query: SQL that returns the rows.
        files: the local files that the query reads.
        streamed: whether each query reads the rows from the source's own files, in any order, and not from an index
            in key order. Several rows may then share a key; they are reduced to one when the rows are first stored.
        notes: lines for the ledger.
        left_out: reason → up to 100 names of the files or members that became no row.
        counts: reason → number of files or members that became no row.
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
        """Return the index of a Parquet file that has the rows, core columns first, in key order."""
        query = f"FROM {read_parquet(parquet)}"
        return cls(classes, digest, rows, query, (parquet,), left_out=left_out, counts=counts)


class Source(ABC):
    """An opened `source:` of a recipe."""

    root: str  # the folder or URL that `file` is relative to
    columns: dict[str, str]  # column → DuckDB type
    classes: tuple[Class, ...] | None = None  # None: not known before it is indexed
    rows: int | None = None  # likewise
    has_bytes: bool = True  # whether the images of its rows can be read
    why: str | None = None  # what was guessed about how to read it

    @property
    def homes(self) -> list[str]:
        """The paths of the source, which a build must not replace."""
        return [self.root]

    @property
    def outside(self) -> list[str]:
        """The places of images that the recipe does not name: see `contracts.outside`."""
        return []

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a text that changes with the source; cheap, and comparable on this machine only."""

    @abstractmethod
    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Return the rows, from the cache if the fingerprint has not changed."""


_registry = Registry[Callable[..., Source]](__name__, "source")
names, opener = _registry.names, _registry.find


def doc(name: str) -> str:
    """Return a source's docstring, dedented."""
    return inspect.getdoc(opener(name)) or ""


def open_source(
    spec: Mapping[str, Any], *, where: str = "source", base: Path = Path(), user_values: Collection[str] = ()
) -> Source:
    """Open a recipe's `source:`, such as `{folder: PATH, …}`; the value beside the name is the first option.

    Args:
        spec: the YAML mapping.
        where: what errors begin with.
        base: the folder that relative paths start from.
        user_values: a path that is one of these, or begins with one, is taken from the working directory.

    Raises:
        RecipeError: a source or option is unknown, a value has a wrong type, or a path does not exist.
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
        arguments["parts"] = {
            name: open_source(part, where=f"{where}, {name}", base=base, user_values=user_values)
            for name, part in arguments["parts"].items()
        }
    path = arguments.get("path")
    if path is not None:
        paths = path if isinstance(path, list) else [path]
        paths = [p if is_remote(p) else str(placed(p, base, user_values)) for p in paths]
        arguments["path"] = paths if isinstance(path, list) else paths[0]
    try:
        return function(**signature.in_python(arguments))
    except CurateError as error:
        raise located(error, where) from error


def placed(path: str, base: Path, user_values: Collection[str]) -> Path:
    """Resolve a path of a recipe: against the recipe's folder, or the working directory if the user gave it."""
    from_user = any(path == g or path.startswith(g.rstrip("/") + "/") for g in user_values)
    return (Path() if from_user else base) / Path(path).expanduser()
