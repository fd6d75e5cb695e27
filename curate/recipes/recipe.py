"""Recipes: YAML that says what a dataset is made of. Reading one runs no code and opens no other file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from curate.errors import RecipeError, reject_unknown
from curate.recipes.documents import count_values, mapping, read_yaml, setting
from curate.recipes.expressions import fill, variables
from curate.recipes.fields import Expect, Resize
from curate.recipes.signatures import Count, Seed, Strict, explain

MAX_SETS = 10_000  # of one matrix
MAX_FAMILY = 5_000_000  # values in all sets of one
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Recipe(Strict):
    """One set: a name, a seed, a source, steps in order, and what to expect.

    Args:
        name: letters, digits, `.`, `_`, `-`.
        seed: of all random choices; a step may have its own.
        source: see `curate.sources`.
        steps: a list of `operation: arguments`.
        order: of the rows and so of the shards; `shuffled` by chance, or by `key`.
        samples_per_shard: how many samples go into one tar, at most.
        bytes_per_shard: how many bytes of images go into one tar, at most; a larger image has a tar of its own.
        resize: how to scale down large images; by default all keep their bytes.
        expect: what the result must be.
        base: the folder of the file it came from; relative paths start there.
        user_values: the values of `--set`, which may name files outside the recipe's folder.
        family: the sets of a matrix; the recipe itself is then only their common text.
    """

    name: str = Field(pattern=NAME)
    seed: Seed = 0
    source: dict[str, Any]
    steps: list[Any] = Field(default_factory=list)
    order: Literal["shuffled", "key"] = "shuffled"
    samples_per_shard: Count = 10_000
    bytes_per_shard: Count | None = None
    resize: Resize | None = None
    expect: Expect = Expect()
    base: Path = Field(default=Path(), exclude=True)
    user_values: tuple[str, ...] = Field(default=(), exclude=True)
    where: str = Field(default="recipe", exclude=True)
    family: tuple[Recipe, ...] = Field(default=(), exclude=True)

    def parsed_steps(self) -> list[tuple[str, str, Any]]:
        """Return each step as (where it is, for messages; operation; arguments)."""
        parsed = []
        for number, step in enumerate(self.steps, start=1):
            where = f"{self.where}, step {number}"
            if step is None:  # a point of a matrix leaves the step out
                continue
            if isinstance(step, str):
                step = {step: None}
            if not isinstance(step, Mapping) or len(step) != 1:
                raise RecipeError(
                    f"{where}: a step is one operation and its arguments, got {step!r}",
                    hint="write `- per_class: {images: 500}`; each step begins with its own dash",
                )
            (name, arguments), *_ = step.items()
            if name in Recipe.model_fields and not Recipe.model_fields[name].exclude:
                hint = f"`{name}:` stands beside `steps:`, not in it"
                raise RecipeError(f"{where}: {name!r} is no operation", hint=hint)
            parsed.append((where, str(name), arguments))
        return parsed


def load(path: str | Path, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a file and fill in its variables.

    Args:
        path: a YAML file.
        settings: variable → value, or its YAML text as `--set` has it; they win over the recipe's own `set:`
            and may fix a variable of its `matrix:`, its `seed` or its `name`.

    Raises:
        RecipeError: the file cannot be read, is no YAML, or is no recipe.
    """
    path = Path(path)
    document = read_yaml(path)
    return parse(document, settings, where=str(path), base=path.parent)


def parse(
    document: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    where: str = "recipe",
    base: Path = Path(),
) -> Recipe:
    """Return the recipe of a document; see `load`."""
    body = dict(document)
    matrix = body.pop("matrix", {})
    body, defaults, fixed = _split_variables(body, settings, where, axes=_axes(matrix, where))
    frame = _Frame(where, base, tuple(str(v) for v in fixed.values()))
    if not matrix:
        return frame.make(body, defaults | fixed)
    family = []
    points = _points(matrix, fixed, where)
    if (values := len(points) * count_values(body, where, "its aliases are written out")) > MAX_FAMILY:
        raise RecipeError(
            f"{where}: {len(points):,} sets of matrix have {values:,} values together, at most {MAX_FAMILY:,} are read",
            hint="put long lists and maps into files of their own, or make several recipes",
        )
    for point in points:
        label = str(point["name"]) if "name" in point else "-".join(f"{k}-{v}" for k, v in point.items())
        named = {"name": f"{body['name']}-{label}"} if "name" in body else {}
        variant = frame.make(body | named, defaults | fixed | fill(point, defaults | fixed, where))
        family.append(variant.model_copy(update={"where": f"{where} ({label})"}))
    return family[0].model_copy(update={"name": str(body.get("name")), "family": tuple(family)})


def _axes(matrix: Any, where: str) -> set[str]:
    """Return the variables that a matrix has values for."""
    if isinstance(matrix, list):
        return {name for point in matrix for name in mapping(point, f"{where}: a point of matrix")} - {"name"}
    return set(mapping(matrix, f"{where}: matrix"))


def _points(matrix: Any, fixed: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the variables of each set: all combinations of the axes, or the points of a list.

    Args:
        fixed: values of the user; the sets with other values are left out.
    """
    if isinstance(matrix, list):
        _refuse_many(len(matrix), "its list", where)
        points = [p for p in matrix if all(p[n] == v for n, v in fixed.items() if n in p and n != "name")]
        if not points:
            raise RecipeError(f"{where}: no point of matrix has {dict(fixed)}", hint="drop one --set")
        names = [p.get("name", repr(p)) for p in points]
        if len(set(names)) < len(names):
            raise RecipeError(f"{where}: two points of matrix have one name")
        return points
    for name, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise RecipeError(f"{where}: matrix: {name} must be a list of values, got {values!r}")
    axes = [[fixed[name]] if name in fixed else values for name, values in matrix.items()]
    _refuse_many(math.prod(map(len, axes)), " x ".join(str(len(a)) for a in axes), where)
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*axes)]


def _refuse_many(sets: int, source: str, where: str) -> None:
    if sets > MAX_SETS:
        raise RecipeError(
            f"{where}: matrix: {source} makes {sets:,} sets, at most {MAX_SETS:,} are made",
            hint="leave values out, or fix an axis by `--set NAME=VALUE`",
        )


def filled(document: Mapping[str, Any], settings: Mapping[str, Any] | None, *, where: str) -> dict[str, Any]:
    """Return a document that is no recipe (an experiment) with its variables filled in.

    Raises:
        RecipeError: a variable has no value, or `settings` names an unknown one.
    """
    body, defaults, fixed = _split_variables(dict(document), settings, where)
    return fill(body, defaults | fixed, where)


def _split_variables(
    body: dict[str, Any], settings: Mapping[str, Any] | None, where: str, axes: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return a document without its `set:`, the defaults that stood there, and the user's values."""
    fixed = {name: setting(text) for name, text in (settings or {}).items()}
    defaults = mapping(body.pop("set", {}), f"{where}: set")
    known = set(axes) | set(defaults) | variables(body) | {"seed", "name"}
    for name in fixed:
        reject_unknown(name, sorted(known), f"{where}: has no variable {name!r}")
    return body | {name: fixed[name] for name in ("seed", "name") if name in fixed}, defaults, fixed


@dataclass(frozen=True)
class _Frame:
    where: str
    base: Path
    user_values: tuple[str, ...]

    def make(self, body: Mapping[str, Any], values: Mapping[str, Any]) -> Recipe:
        filled = fill(body, values, self.where)
        count_values(filled, self.where, "its variables are filled in")
        known = [name for name, f in Recipe.model_fields.items() if not f.exclude]
        for name in filled:
            reject_unknown(name, [*known, "set", "matrix"], f"{self.where}: a recipe has no {name!r}")
        try:
            return Recipe.model_validate(
                dict(filled) | {"base": self.base, "user_values": self.user_values, "where": self.where}
            )
        except ValidationError as error:
            folder = filled["source"] if isinstance(filled.get("source"), str) else "PATH"
            short = filled.get("resize")
            hints = {
                "name": "letters, digits, `.`, `_`, `-`; the first is a letter or a digit; at most 100",
                "source": f"write `source: {{folder: {folder}}}`",
                "steps": "each step begins with its own dash: `- per_class: 500`",
                "resize": f"write `resize: {{short: {short if isinstance(short, int) else 256}}}`",
                "bytes_per_shard": "write a whole number of bytes: 100000000",
            }
            raise explain(error, where=self.where, model=Recipe, hints=hints) from None
