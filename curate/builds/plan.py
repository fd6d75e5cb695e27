"""The plan: a recipe checked against its source without reading a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from curate.captions.texts import check_list
from curate.datasets.dataset import file_sha256, open_dataset
from curate.errors import CurateError, RecipeError, first_line, located
from curate.ops import Operation, find
from curate.recipes.fields import RESIZE_VERSION
from curate.recipes.recipe import Recipe
from curate.rows.manifest import Class, digest
from curate.rows.relation import FLOATS, NotKnownYet, Rows, columns_of
from curate.rows.sql import plain, quoted, text
from curate.sources import Source, open_source, placed

PLAN_VERSION = 2


@dataclass(frozen=True)
class Step:
    """One step, bound: where it stands, its operation, and all its arguments."""

    place: str
    operation: Operation
    arguments: Mapping[str, Any]

    @property
    def content(self) -> list[Any]:
        """What the step's result depends on: a file by its bytes, not its name."""
        told = dict(self.arguments)
        for parameter in self.operation.signature.files:
            told[parameter] = told[parameter] and "sha256:" + file_sha256(Path(told[parameter]))
        for parameter in self.operation.signature.datasets:
            told[parameter] = told[parameter] and open_dataset(told[parameter]).digest
        return [self.operation.name, self.operation.version, told]

    @property
    def reads(self) -> list[str]:
        """The files that the step reads as it runs."""
        return [file for p in self.operation.signature.files if (file := self.arguments[p])]

    @property
    def shown(self) -> dict[str, Any]:
        """The arguments that a ledger shows: those that differ from saying nothing."""
        return {k: v for k, v in self.arguments.items() if v is not None and k != "seed"}


@dataclass(frozen=True)
class Plan:
    """A recipe bound to its source.

    Args:
        columns: the result's columns and types, as far as the steps could be bound.
        classes: the result's classes; None when only the rows can tell.
        bound: how many steps were bound; the others are checked when the source has been indexed.
    """

    recipe: Recipe
    source: Source
    steps: tuple[Step, ...]
    columns: Mapping[str, str]
    classes: tuple[Class, ...] | None
    bound: int

    def digest(self, source_digest: str) -> str:
        """Name the result by all that goes into it: source content, steps, versions, order."""
        from curate.wordnet import digest as wordnet_digest

        recipe = self.recipe
        steps = [step.content for step in self.steps]
        parts: list[Any] = [PLAN_VERSION, recipe.name, recipe.seed, recipe.order, recipe.samples_per_shard]
        told = {
            "bytes_per_shard": recipe.bytes_per_shard,
            "resize": recipe.resize and {**recipe.resize.model_dump(), "version": RESIZE_VERSION},
        }
        parts += [[name, value] for name, value in told.items() if value is not None]
        if any(kind in FLOATS for kind in self.source.columns.values()):
            parts.append(
                ["NaN", "NULL"]
            )  # as they enter, see frames; sets that were built before may hold some
        return digest([*parts, source_digest, steps, wordnet_digest()])


def plan(recipe: Recipe) -> Plan:
    """Check a recipe: its source is there, every step exists, takes its arguments and fits the columns.

    Steps are bound against an empty table of the source's columns, so this takes no longer for a billion rows.

    Raises:
        RecipeError: with the step, the fault and what to do.
    """
    source = open_source(
        recipe.source, where=f"{recipe.where}, source", base=recipe.base, user_values=recipe.user_values
    )
    steps = tuple(_bind(recipe, *step) for step in recipe.parsed_steps())
    with duckdb.connect() as con:
        allow_only(con, files=[file for step in steps for file in step.reads])
        columns = ", ".join(f"{quoted(c)} {kind}" for c, kind in source.columns.items())
        con.execute(f"CREATE TABLE source ({columns})")
        rows = Rows(
            con, "source", dict(source.columns), source.classes, planning=True, streamed=not source.has_bytes
        )
        bound = 0
        for step in steps:
            try:
                with told(step):
                    rows = run(step, rows)
            except NotKnownYet:
                return Plan(recipe, source, steps, rows.columns, None, bound)
            bound += 1
        check_result(recipe, rows)
        promised = recipe.expect.classes
        if rows.known is not None and promised is not None and promised > len(rows.known):
            raise RecipeError(
                f"{recipe.where}: expect: classes: {promised:,} promised, at most {len(rows.known):,} can come out",
                hint="another source, or other steps; recipes with `scale` promise less when it is below 1",
            )
        return Plan(recipe, source, steps, rows.columns, rows.known, bound)


def check_result(recipe: Recipe, rows: Rows) -> None:
    """Refuse columns that a set cannot have.

    Raises:
        RecipeError: `captions` is no list of texts.
    """
    try:
        check_list(rows)
    except CurateError as error:
        raise located(error, recipe.where) from None


def run(step: Step, rows: Rows) -> Rows:
    """Apply a step."""
    result = step.operation(rows, **step.arguments)
    return replace(result, columns=columns_of(rows.con, result.name))


@contextmanager
def told(step: Step) -> Iterator[None]:
    """Tell what goes wrong in a step, while it is bound or while it meets the rows, with the step's place.

    Raises:
        RecipeError, DataError: from the operation, or from SQL.
    """
    where = f"{step.place} ({step.operation.name})"
    try:
        yield
    except CurateError as error:
        raise located(error, where) from error
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        said = binder_message(error)
        hint = next((hint for part, hint in _WAYS_OUT.items() if part in said), None)
        raise RecipeError(f"{where}: {said}{_asked(step)}", hint=hint) from error


# What DuckDB says of a value that an expression cannot take → what to write instead.
_WAYS_OUT = {
    "Overflow in": "count in a wider type: `width::BIGINT * height`",
    "Could not convert": "`try_cast(x AS INTEGER)` is NULL where x is no such number",
    "Division by zero": "`x // nullif(y, 0)` is NULL where y is 0",
}


def _asked(step: Step) -> str:
    """Return the SQL that a step was given, for a message; nothing where it has none."""
    columns = step.arguments.get("columns")
    found = [step.arguments.get(name) for name in ("condition", "equal_to")]
    found += (
        list(columns.values()) if isinstance(columns, Mapping) and step.operation.name == "compute" else []
    )
    shown = ", ".join(repr(sql if len(sql) <= 200 else f"{sql[:60]}…") for sql in found if sql)
    return f" (in {shown})" if shown else ""


def binder_message(error: Exception) -> str:
    """Return what DuckDB says is wrong, without its drawing of the query and its own ways out."""
    return first_line(error).removeprefix("Binder Error: ").partition(" Use TRY(")[0]


def _bind(recipe: Recipe, place: str, name: str, value: Any) -> Step:
    operation = find(name, where=place)
    arguments = operation.signature.bind(value, where=f"{place} ({name})")
    if "seed" in arguments and arguments["seed"] is None:
        arguments["seed"] = recipe.seed
    for parameter in [*operation.signature.files, *operation.signature.datasets]:
        if arguments[parameter] is not None:
            arguments[parameter] = str(_allowed(recipe, arguments[parameter], f"{place} ({name})"))
    for parameter in operation.signature.files:
        if arguments[parameter] is not None and not Path(arguments[parameter]).is_file():
            raise RecipeError(f"{place} ({name}): {arguments[parameter]}: no such file")
    return Step(place, operation, arguments)


def allow_only(con: Any, *, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Take from a DuckDB connection, for good, all files but these: what a recipe says runs on it."""
    for option, paths in (("allowed_paths", files), ("allowed_directories", folders)):
        both = [*paths, *map(plain, paths)]  # as they are for writing, as patterns for reading
        con.execute(f"SET {option} = [{', '.join(map(text, both))}]")
    with suppress(duckdb.Error):  # a DuckDB without ICU has no zones, and no clock of the machine's to go by
        con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def _allowed(recipe: Recipe, named: str, where: str) -> Path:
    """Return the path of a file or dataset that a step names, if the recipe may read it."""
    path = placed(named, recipe.base, recipe.user_values)
    inside = path.resolve().is_relative_to(recipe.base.resolve())
    if not inside and named not in recipe.user_values:
        raise RecipeError(
            f"{where}: {named!r} is outside the recipe's folder",
            hint="put it beside the recipe, or name it by a variable and `--set`",
        )
    return path
