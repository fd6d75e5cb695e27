"""The plan: a recipe checked against its source without reading a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.builds.step import Step, allow_only, bind_rows, check_result
from curate.errors import RecipeError
from curate.ops import find
from curate.recipes.fields import RESIZE_VERSION
from curate.recipes.recipe import Recipe
from curate.rows.manifest import Class, digest
from curate.rows.relation import FLOATS, NotKnownYet, Rows
from curate.rows.sql import quoted
from curate.sources import Source, open_source, placed

PLAN_VERSION = 2


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
        options = {
            "bytes_per_shard": recipe.bytes_per_shard,
            "resize": recipe.resize and {**recipe.resize.model_dump(), "version": RESIZE_VERSION},
        }
        parts += [[name, value] for name, value in options.items() if value is not None]
        if any(kind in FLOATS for kind in self.source.columns.values()):
            parts.append(["NaN", "NULL"])  # as they enter, see `steps`; older sets may hold some
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
        allow_only(con, steps)
        columns = ", ".join(f"{quoted(c)} {kind}" for c, kind in source.columns.items())
        con.execute(f"CREATE TABLE source ({columns})")
        rows = Rows(
            con, "source", dict(source.columns), source.classes, planning=True, streamed=not source.has_bytes
        )
        bound = 0
        for step in steps:
            try:
                rows = bind_rows(step, rows)
            except NotKnownYet:
                return Plan(recipe, source, steps, rows.columns, None, bound)
            bound += 1
        check_result(recipe.where, rows)
        promised = recipe.expect.classes
        if rows.known is not None and promised is not None and promised > len(rows.known):
            raise RecipeError(
                f"{recipe.where}: expect: classes: {promised:,} promised, at most {len(rows.known):,} can come out",
                hint="another source, or other steps; recipes with `scale` promise less when it is below 1",
            )
        return Plan(recipe, source, steps, rows.columns, rows.known, bound)


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
