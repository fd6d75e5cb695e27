"""Signatures: a function's parameters as the schema of a recipe's options: types, ranges, defaults, docs."""

from __future__ import annotations

import datetime
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from curate.errors import RecipeError, did_you_mean, reject_unknown
from curate.io.records import Record

Count = Annotated[int, Field(ge=1, lt=2**53)]  # what a float can count, and a product of two fits a HUGEINT
Fraction = Annotated[float, Field(ge=0, le=1)]  # 0..1, never a percentage


class WrittenInt(int):
    """A whole number that Python writes otherwise than the recipe: `0123` (83 in YAML), `0x1F`, `1_000`, `1:30`.

    Args:
        written: its text in the recipe.
    """

    written: str

    def __new__(cls, value: int, written: str) -> WrittenInt:
        """Make the number."""
        number = super().__new__(cls, value)
        number.written = written
        return number


def _as_name(value: Any) -> Any:
    """Return a whole number as the text that the recipe has; refuse values whose text YAML does not keep."""
    if type(value) is int:
        return str(value)
    if isinstance(value, WrittenInt):
        raise ValueError(f"put quotes around {value.written}, which YAML reads as a number")
    if isinstance(value, bool | float | datetime.date):
        raise ValueError("put quotes around it, for YAML does not read it as a text")
    return value


# What a class, a source or a split is called: YAML reads the name of a folder `123` as a number.
ClassName = Annotated[str, BeforeValidator(_as_name)]


class RecipeFile:
    """Marks a parameter that names a file: inside the recipe's folder, or given by `--set`."""


class RecipeDataset:
    """Marks a parameter that names a dataset's folder: inside the recipe's folder, or given by `--set`."""


Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Strict(Record):
    """A mapping that a person writes: no keys but its own, and values of their types."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Arguments(Strict):
    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=False)


def documented(doc: str) -> dict[str, str]:
    """Return what the `Args:` of a docstring, dedented, say of each argument."""
    meanings: dict[str, str] = {}
    for line in doc.partition("Args:\n")[2].splitlines():
        if not line.startswith("    "):
            break
        if line.startswith("        "):  # the line before goes on
            meanings[next(reversed(meanings))] += " " + line.strip()
        else:
            name, _, meaning = line.strip().partition(": ")
            meanings[name] = meaning
    return meanings


class Signature:
    """The keyword parameters of a function, checked by pydantic.

    Args:
        function: its keyword parameters are the schema, the caller passes positional ones; of a dataclass, all are.
        optional: parameters that the caller fills in when the recipe does not (such as the recipe's seed).
    """

    def __init__(self, function: Callable[..., Any], *, optional: tuple[str, ...] = ()) -> None:
        hints = typing.get_type_hints(function, include_extras=True)
        self.parameters = {  # an option called as a word of Python has `_` behind it there: `as_`
            name.rstrip("_"): parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY or inspect.isclass(function)
        }
        self._optional = optional
        self.types = {name: hints[parameter.name] for name, parameter in self.parameters.items()}
        fields: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            default = parameter.default
            if default is parameter.empty:
                default = None if name in optional else ...
            kind = self.types[name] if default is not None else self.types[name] | None
            if typing.get_origin(kind) is tuple:  # YAML has lists only
                kind = Annotated[kind, Field(strict=False)]
            fields[name] = (kind, default)
        self._model = create_model(function.__name__, __base__=_Arguments, **fields)

    @property
    def names(self) -> list[str]:
        """The parameters in order; a recipe may give the first without its name."""
        return list(self.parameters)

    @property
    def files(self) -> list[str]:
        """The parameters that name files."""
        return [name for name, kind in self.types.items() if _marks(kind, RecipeFile)]

    @property
    def datasets(self) -> list[str]:
        """The parameters that name datasets."""
        return [name for name, kind in self.types.items() if _marks(kind, RecipeDataset)]

    def bind(self, value: Any, *, where: str) -> dict[str, Any]:
        """Return the arguments that a YAML value means, with defaults.

        A mapping names its parameters, any other value is the first parameter, and `None` means no arguments.

        Raises:
            RecipeError: an option is unknown, missing, of a wrong type or out of range.
        """
        bare, arguments = False, value
        if value is None:
            arguments = {}
        elif not isinstance(value, Mapping) or (self._takes_map() and not set(value) & set(self.names)):
            if not self.names:
                raise RecipeError(f"{where}: takes no options, got {value!r}")
            bare, arguments = True, {self.names[0]: value}
        for name in arguments:
            known = f"it takes {', '.join(self.names)}"
            reject_unknown(name, self.names, f"{where}: no option {name!r}", hint=known)
        try:
            return dict(self._model.model_validate(dict(arguments)))
        except ValidationError as error:
            fault = explain(error, where=where, model=self._model)
            hint = fault.hint or (self._meant(value) if bare else None)
            raise RecipeError(fault.message, hint=hint) from None

    def in_python(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments under the function's own names: `as` is `as_` there."""
        return {self.parameters[n].name if n in self.parameters else n: v for n, v in arguments.items()}

    def _meant(self, value: Any) -> str | None:
        """Return a hint: the options that would accept a value that the first does not."""
        others = [n for n in self.names[1:] if n not in self._optional]
        if isinstance(
            value, str
        ):  # an option that accepts any text is no hint if the first is a choice of words
            number = _number(value)
            value = value if number is None else number
            chosen = typing.get_origin(self.types[self.names[0]]) is typing.Literal
            others = [n for n in others if not (chosen and self._takes(n, ""))]
        fitting = [name for name in others if self._takes(name, value)]
        needed = {name for name, p in self.parameters.items() if p.default is p.empty} - set(self._optional)
        if alone := [name for name in fitting if needed <= {name}]:
            text = json.dumps(value, ensure_ascii=False, default=str)
            return f"did you mean {' or '.join(f'{{{name}: {text}}}' for name in alone[:3])}?"
        return f"such a value is for {' or '.join(fitting[:3])}" if fitting else None

    def _takes(self, name: str, value: Any) -> bool:
        try:
            self._model.__pydantic_validator__.validate_assignment(self._model.model_construct(), name, value)
        except ValidationError:
            return False
        return True

    def _takes_map(self) -> bool:
        return bool(self.names) and "dict" in str(self.types[self.names[0]])


def _marks(kind: Any, mark: type) -> bool:
    return mark in getattr(kind, "__metadata__", ()) or any(_marks(k, mark) for k in typing.get_args(kind))


def explain(
    error: ValidationError,
    *,
    where: str = "",
    model: type[BaseModel] | None = None,
    hints: Mapping[str, str] = MappingProxyType({}),
) -> RecipeError:
    """Return the first fault of a pydantic error as "option: what it should be, not VALUE".

    Args:
        where: what the message begins with.
        model: the model that was validated; its fields are offered if a name is unknown.
        hints: option → hint if its type or form is wrong.
    """
    faults = error.errors()
    first = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    kind, value, place = first["type"], first["input"], first["loc"]
    option = ".".join(_recipe_parts(place))
    message = first["msg"].removeprefix("Value error, ")
    fault, hint = f"{option}: {message[0].lower()}{message[1:]}, not {value!r}", None
    if kind == "model_type":
        fault = f"{option}: should be a mapping, not {value!r}"
    if kind == "missing":
        fault = f"option {option!r} is missing"
    elif kind == "extra_forbidden":
        inside, known, name = *_inside(model, place[:-1]), str(place[-1])
        fault = f"{inside}: no option {name!r}" if inside else f"no option {name!r}"
        hint = did_you_mean(name, known) or (f"it takes {', '.join(known)}" if known else None)
    elif kind == "literal_error":
        hint = did_you_mean(str(value), re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    elif kind in ("float_type", "int_type") and isinstance(value, str | float):
        number = _number(value) if isinstance(value, str) else value
        whole = number is not None and number % 1 == 0
        shown = int(number) if whole and kind == "int_type" else number  # type: ignore[arg-type]
        hint = (
            f"write {shown}" if whole or (kind == "float_type" and number is not None) else hints.get(option)
        )
    elif kind in ("dict_type", "list_type", "model_type", "string_pattern_mismatch"):
        hint = hints.get(option)
    if kind == "string_pattern_mismatch" and hint:
        fault = f"{option}: should be written otherwise, not {value!r}"
    return RecipeError(f"{where}: {fault}" if where else fault, hint=hint)


def _recipe_parts(place: tuple[Any, ...]) -> Iterator[str]:
    """Yield the parts of a fault's location that the recipe has, without the types that pydantic tried in turn."""
    for number, part in enumerate(place):
        if isinstance(part, int) or not (number and re.fullmatch(r"(\w|-)*\[.*\]|str|int|float|bool", part)):
            yield str(part)


def _number(value: str) -> int | float | None:
    """Return the number that a text such as `8`, `0.2` or `20%` means."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:[eE]\+?\d{1,2})?)\s*(%?)\s*", value)
    if not match:
        return None
    if match[2]:
        return float(f"{float(match[1]) / 100:.12g}")  # 7 / 100 is 0.07 and not 0.07000000000000001
    return float(match[1]) if re.search(r"[.eE]", match[1]) else int(match[1])


def _inside(model: Any, place: tuple[Any, ...]) -> tuple[str, list[str]]:
    """Return the location of a fault as the recipe writes it, and the fields of the model there."""
    parts = []
    for part in place:
        if model is not None and part == model.__name__:  # one of several types that a field may have
            continue
        parts.append(str(part))
        kind = (
            model.model_fields[part].annotation if model is not None and part in model.model_fields else None
        )
        models = (k for k in (kind, *typing.get_args(kind)) if hasattr(k, "model_fields"))
        model = next(models, None)
    return ".".join(parts), [] if model is None else [
        n for n, f in model.model_fields.items() if not f.exclude
    ]
