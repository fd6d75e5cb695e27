"""The methods by name. Each is a module with `train`, `PRESETS` and its config, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curate.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from train.loop.config import LoopConfig

CONFIGS = {"supervised": "SupervisedConfig", "clip": "ClipConfig", "simclr": "SimclrConfig"}


def method(name: str, where: str = "") -> Any:
    """Return the module of a method.

    Args:
        name: of the method.
        where: what an error begins with.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in CONFIGS:
        hint = did_you_mean(name, CONFIGS) or f"there are: {', '.join(CONFIGS)}"
        raise RecipeError(f"{where + ': ' if where else ''}no method {name!r}", hint=hint)
    return importlib.import_module(f"train.methods.{name}")


def config_type(name: str) -> type[LoopConfig]:
    """Return the config of a method."""
    return getattr(method(name), CONFIGS[name])


def config_of(name: str, options: Mapping[str, Any], where: str) -> LoopConfig:
    """Return a method's config from the options of a file, checked; `preset` names some to begin with.

    Raises:
        RecipeError: no such method, option or value; it begins with `where`.
    """
    from train.loop.config import parse

    return parse(getattr(method(name, where), CONFIGS[name]), options, where, method(name).PRESETS)
