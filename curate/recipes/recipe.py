"""Recipes: YAML that says what a set is made of. Reading one runs no code and touches no other file."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from curate.errors import RecipeError, reject_unknown
from curate.recipes.expressions import fill, variables
from curate.recipes.fields import Expect, Resize
from curate.recipes.signatures import Count, Seed, Strict, WrittenInt, explain

MAX_BYTES = 4 << 20  # of a recipe's file
MAX_NODES = 200_000  # values in one recipe; a map of all 21k classes of ImageNet fits ten times
MAX_CHARACTERS = 10_000_000  # of its texts, once aliases and variables are written out
MAX_SETS = 10_000  # of one matrix
MAX_FAMILY = 5_000_000  # values in all sets of one
MAX_DIGITS = 100  # of a whole number; 1,000,000 take seconds to read
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
        given: values from `--set`, which may name files outside the recipe's folder.
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
    given: tuple[str, ...] = Field(default=(), exclude=True)
    where: str = Field(default="recipe", exclude=True)
    family: tuple[Recipe, ...] = Field(default=(), exclude=True)

    def parsed_steps(self) -> list[tuple[str, str, Any]]:
        """Return each step as (place for messages, operation, arguments)."""
        parsed = []
        for number, step in enumerate(self.steps, start=1):
            place = f"{self.where}, step {number}"
            if step is None:  # a point of a matrix that does without the step
                continue
            if isinstance(step, str):
                step = {step: None}
            if not isinstance(step, Mapping) or len(step) != 1:
                raise RecipeError(
                    f"{place}: a step is one operation and its arguments, got {step!r}",
                    hint="write `- per_class: {images: 500}`; each step begins with its own dash",
                )
            (name, arguments), *_ = step.items()
            if name in Recipe.model_fields and not Recipe.model_fields[name].exclude:
                hint = f"`{name}:` stands beside `steps:`, not in it"
                raise RecipeError(f"{place}: {name!r} is no operation", hint=hint)
            parsed.append((place, str(name), arguments))
        return parsed


class _Loader(yaml.SafeLoader):
    """The safe loader, without duplicate keys, which YAML itself forbids; `on`, `no` and `yes` are words."""

    # As in YAML 1.2: `language: no` is Norwegian, not false.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:bool"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            said = key if isinstance(key, str) else str(key)  # 123 and "123" are one name
            if said in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice", key_node.start_mark
                )
            seen.add(said)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Return a whole number that knows how it was written, where that is not how Python writes it.

        Raises:
            ConstructorError: it has more digits than any number in a recipe.
        """
        if len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value):,} digits; {MAX_DIGITS} are read", node.start_mark
            )
        value = self.construct_yaml_int(node)
        return value if str(value) == node.value else WrittenInt(value, node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole_number)
yaml.SafeDumper.add_representer(WrittenInt, lambda dumper, number: dumper.represent_int(int(number)))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(?:true|false)$"), ["t", "f"])


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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping safely.

    Raises:
        RecipeError: the file cannot be read, is no YAML, or holds something else.
    """
    content = ""
    try:
        content = _read(path)
        document = yaml.load(content, _Loader)
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror})", hint="give the path of a recipe"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        hint = _unquoted(content.splitlines()[mark.line : mark.line + 1]) if mark else None
        raise RecipeError(f"{path}{line}: not plain YAML: {problem}", hint=hint) from None
    _weigh(document, f"{path}", "its aliases are written out")
    if not isinstance(document, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping, got {type(document).__name__}", hint="begin with `name:`"
        )
    return document


def _unquoted(lines: list[str]) -> str | None:
    """Return a hint where a variable stands in a line without quotes, which YAML takes for a mapping."""
    bare = re.sub(r"""\"[^"]*\"|'[^']*'""", "", "".join(lines)[:1_000])
    found = re.search(r"[^\s,{}\[\]]*\$\{[^{}]*\}[^\s,{}\[\]]*", bare)
    return f'inside braces a variable needs quotes: write "{found[0]}"' if found else None


def parse(
    document: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    where: str = "recipe",
    base: Path = Path(),
) -> Recipe:
    """Make a recipe of a document that has been read; see `load`."""
    body = dict(document)
    matrix = body.pop("matrix", {})
    body, defaults, given = _settled(body, settings, where, also=_axes(matrix, where))
    frame = _Frame(where, base, tuple(str(v) for v in given.values()))
    if not matrix:
        return frame.make(body, defaults | given)
    family = []
    points = _points(matrix, given, where)
    if (values := len(points) * _weigh(body, where, "its aliases are written out")) > MAX_FAMILY:
        raise RecipeError(
            f"{where}: {len(points):,} sets of matrix have {values:,} values together, at most {MAX_FAMILY:,} are read",
            hint="put long lists and maps into files of their own, or make several recipes",
        )
    for point in points:
        label = str(point["name"]) if "name" in point else "-".join(f"{k}-{v}" for k, v in point.items())
        named = {"name": f"{body['name']}-{label}"} if "name" in body else {}
        variant = frame.make(body | named, defaults | given | fill(point, defaults | given, where))
        family.append(variant.model_copy(update={"where": f"{where} ({label})"}))
    return family[0].model_copy(update={"name": str(body.get("name")), "family": tuple(family)})


def _axes(matrix: Any, where: str) -> set[str]:
    """Return the variables that a matrix gives values to."""
    if isinstance(matrix, list):
        return {name for point in matrix for name in _mapping(point, f"{where}: a point of matrix")} - {
            "name"
        }
    return set(_mapping(matrix, f"{where}: matrix"))


def _points(matrix: Any, given: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return each set's values: all combinations of the axes, or the points of a list; what is given fixes a value."""
    if isinstance(matrix, list):
        _refuse_many(len(matrix), "its list", where)
        points = [p for p in matrix if all(p[n] == v for n, v in given.items() if n in p and n != "name")]
        if not points:
            raise RecipeError(f"{where}: no point of matrix has {dict(given)}", hint="drop one --set")
        names = [p.get("name", repr(p)) for p in points]
        if len(set(names)) < len(names):
            raise RecipeError(f"{where}: two points of matrix have one name")
        return points
    for name, values in matrix.items():
        if not isinstance(values, list) or not values:
            raise RecipeError(f"{where}: matrix: {name} must be a list of values, got {values!r}")
    axes = [[given[name]] if name in given else values for name, values in matrix.items()]
    _refuse_many(math.prod(map(len, axes)), " x ".join(str(len(a)) for a in axes), where)
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*axes)]


def _refuse_many(sets: int, told: str, where: str) -> None:
    if sets > MAX_SETS:
        raise RecipeError(
            f"{where}: matrix: {told} makes {sets:,} sets, at most {MAX_SETS:,} are made",
            hint="leave values out, or fix an axis by `--set NAME=VALUE`",
        )


def filled(document: Mapping[str, Any], settings: Mapping[str, Any] | None, *, where: str) -> dict[str, Any]:
    """Return a document that is no recipe itself (an experiment) with its variables filled in.

    Raises:
        RecipeError: a variable has no value, or `settings` names one that is not there.
    """
    body, defaults, given = _settled(dict(document), settings, where)
    return fill(body, defaults | given, where)


def _settled(
    body: dict[str, Any], settings: Mapping[str, Any] | None, where: str, also: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Split off the defaults of a document's variables; return it, them, and what was given instead."""
    given = {name: _value(text) for name, text in (settings or {}).items()}
    defaults = _mapping(body.pop("set", {}), f"{where}: set")
    known = set(also) | set(defaults) | variables(body) | {"seed", "name"}
    for name in given:
        reject_unknown(name, sorted(known), f"{where}: has no variable {name!r}")
    return body | {name: given[name] for name in ("seed", "name") if name in given}, defaults, given


@dataclass(frozen=True)
class _Frame:
    where: str
    base: Path
    given: tuple[str, ...] = field(default=())

    def make(self, body: Mapping[str, Any], values: Mapping[str, Any]) -> Recipe:
        filled = fill(body, values, self.where)
        _weigh(filled, self.where, "its variables are filled in")
        known = [name for name, f in Recipe.model_fields.items() if not f.exclude]
        for name in filled:
            reject_unknown(name, [*known, "set", "matrix"], f"{self.where}: a recipe has no {name!r}")
        try:
            return Recipe.model_validate(
                dict(filled) | {"base": self.base, "given": self.given, "where": self.where}
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


def _read(path: Path) -> str:
    """Return the text of a recipe.

    Raises:
        ValueError: it is too long for one.
    """
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return content.decode("utf-8")


def _weigh(document: Any, where: str, when: str) -> int:
    """Return how many values a document has when its aliases are followed, which can nest without end.

    Raises:
        RecipeError: they or their texts are too many.
    """
    count, characters, stack = 0, 0, [document]
    while stack:
        value = stack.pop()
        count += 1
        characters += len(value) if isinstance(value, str) else 0
        if count > MAX_NODES or characters > MAX_CHARACTERS:
            what = f"{MAX_NODES:,} values" if count > MAX_NODES else f"{MAX_CHARACTERS:,} characters"
            raise RecipeError(f"{where}: more than {what} once {when}")
        if isinstance(value, Mapping):
            stack += [*value, *value.values()]
        elif isinstance(value, list):
            stack += value
    return count


def _value(text: Any) -> Any:
    """Return what a text says in YAML; what is a value already is that."""
    if not isinstance(text, str):
        return text
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a path, or a date that is none
        return text


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise RecipeError(f"{where} must be a mapping of names, got {value!r}")
    return value
