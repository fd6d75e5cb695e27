"""The methods by name. Each is a module with `train`, `PRESETS` and its config, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from curate.errors import reject_unknown

if TYPE_CHECKING:
    from train.loop.config import LoopConfig

# Each is a command of `curate train`: its module here, the config in it, and what the list of commands says.
METHODS = {
    "supervised": ("SupervisedConfig", "Learn the labels of a dataset by cross-entropy."),
    "clip": ("ClipConfig", "Learn which caption belongs to which image, as CLIP does."),
    "simclr": (
        "SimclrConfig",
        "Learn without labels to tell two views of an image from those of others, as SimCLR does.",
    ),
}


def method(name: str, where: str = "") -> Any:
    """Return the module of a method.

    Args:
        name: of the method.
        where: what an error begins with.

    Raises:
        RecipeError: there is none of that name.
    """
    reject_unknown(name, METHODS, f"{where + ': ' if where else ''}no method {name!r}")
    return importlib.import_module(f"train.methods.{name}")


def config_type(name: str) -> type[LoopConfig]:
    """Return the config of a method."""
    return getattr(method(name), METHODS[name][0])


def config_of(name: str, options: Mapping[str, Any], where: str) -> LoopConfig:
    """Return a method's config from the options of a file, checked; `preset` names some to begin with.

    Raises:
        RecipeError: no such method, option or value; it begins with `where`.
    """
    from train.loop.config import parse

    return parse(getattr(method(name, where), METHODS[name][0]), options, where, method(name).PRESETS)
