"""The methods by name. Each is a module with `train`, `PRESETS` and its config, imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import reject_unknown

if TYPE_CHECKING:
    from curate.datasets.dataset import Dataset
    from train.loop.config import LoopConfig
    from train.runs import Run

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


def train(
    method_name: str,
    dataset: str | Path | Dataset,
    out: str | Path,
    *,
    val: str | Path | Dataset | None = None,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Pre-train a model on a dataset, as `curate train METHOD` does; goes on from the last checkpoint in `out`.

    Args:
        method_name: supervised, clip or simclr.
        dataset: opened, or its folder or URL.
        out: the run's folder.
        val: a dataset to measure on; the dataset's own split val by default.
        quiet: no progress on stderr.
        options: fields of the method's config, and `preset`.

    Raises:
        RecipeError: no such method, option or value; a run of other options in `out`.
        DataError: the dataset is damaged, or the loss is not finite.
    """
    from curate.datasets.dataset import open_dataset

    config = config_of(method_name, options, "train")
    opened = open_dataset(dataset) if isinstance(dataset, str | Path) else dataset
    held_out = open_dataset(val) if isinstance(val, str | Path) else val
    return method(method_name).train(opened, Path(out), config, val=held_out, quiet=quiet)
