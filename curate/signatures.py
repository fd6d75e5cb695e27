"""A function's signature as the schema of what a recipe may say: types, ranges, defaults, docs."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from curate.errors import RecipeError, did_you_mean

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]  # 0..1, never a percentage


class RecipeFile:
    """Marks a parameter that names a file: inside the recipe's folder, or given by `--set`."""


class RecipeDataset:
    """Marks a parameter that names a dataset's folder: inside the recipe's folder, or given by `--set`."""


Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class Signature:
    """What a function takes by name, checked by pydantic.

    Args:
        function: its keyword parameters are the schema, positional ones are ours to give; of a dataclass, all.
        given: names that the caller fills in when the recipe does not (such as the recipe's seed).
    """

    def __init__(self, function: Callable[..., Any], *, given: tuple[str, ...] = ()) -> None:
        hints = typing.get_type_hints(function, include_extras=True)
        self.parameters = {
            name: parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY or inspect.isclass(function)
        }
        self.types = {name: hints[name] for name in self.parameters}
        fields: dict[str, Any] = {}
        for name, parameter in self.parameters.items():
            default = parameter.default
            if default is parameter.empty:
                default = None if name in given else ...
            kind = hints[name] if default is not None else hints[name] | None
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
        """Return the arguments that a YAML value stands for, defaults included.

        A mapping names its parameters; anything else is the first parameter; nothing is no argument.

        Raises:
            RecipeError: an unknown option, a wrong type, a value out of range, one that is missing.
        """
        if value is None:
            value = {}
        elif not isinstance(value, Mapping) or (self._takes_map() and not set(value) & set(self.names)):
            if not self.names:
                raise RecipeError(f"{where}: takes no options, got {value!r}")
            value = {self.names[0]: value}
        for name in value:
            if name not in self.parameters:
                raise RecipeError(
                    f"{where}: no option {name!r}",
                    hint=did_you_mean(str(name), self.names) or f"it takes {', '.join(self.names)}",
                )
        try:
            return dict(self._model.model_validate(dict(value)))
        except ValidationError as error:
            raise RecipeError(f"{where}: {explain(error)}") from None

    def _takes_map(self) -> bool:
        return bool(self.names) and "dict" in str(self.types[self.names[0]])


def _marks(kind: Any, mark: type) -> bool:
    return mark in getattr(kind, "__metadata__", ()) or any(_marks(k, mark) for k in typing.get_args(kind))


def explain(error: ValidationError) -> str:
    """Return the first fault of a pydantic error as "option: what it should be, not VALUE"."""
    first = error.errors()[0]
    option = ".".join(str(part) for part in first["loc"] if isinstance(part, int | str))
    if first["type"] == "missing":
        return f"option {option!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{option}: {message[0].lower()}{message[1:]}, not {first['input']!r}"
