"""The commands of methods, each made from its config: names, types, defaults and help of its fields."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import Json, QuietOption, report_errors
from curate.cli.plain import PlainCommand, plain_app
from curate.errors import RecipeError
from train.methods import registry

if TYPE_CHECKING:
    from train.loop.config import LoopConfig

VAL = "A dataset to measure on: its split val, else all of it. The dataset's own split val by default."


@report_errors
def run_method(context: typer.Context, name: str) -> None:
    """Run a method's command, made from its config: names, types, defaults and help."""
    from train.loop.config import preset
    from train.loop.distributed import distributed_from

    module, kind = registry.method(name), registry.config_type(name)
    chosen = _chosen_preset(context.args)
    defaults = preset(module.PRESETS, chosen, f"curate train {name}") if chosen else {}
    presets = f"Options to begin with: {', '.join(module.PRESETS) or 'there are none'}."
    fixed = [
        _parameter("dataset", Annotated[str, typer.Argument(help="A dataset: a folder or a URL.")]),
        _parameter("out", Annotated[Path, typer.Option(help="The run's folder.")]),
        _parameter("val", Annotated[str | None, typer.Option(help=VAL)], None),
        _parameter("preset", Annotated[str | None, typer.Option(help=presets)], None),
        _parameter("json", Json, False),
        _parameter("quiet", QuietOption, False),
    ]

    def command(
        dataset: str, out: Path, val: str | None, preset: str | None, json: bool, quiet: bool, **options: Any
    ) -> None:
        from curate.cli.printing import print_json
        from curate.datasets.dataset import open_dataset

        if json and options["dry_run"]:
            raise RecipeError(
                "--json with --dry-run", hint="a dry run prints text for people; leave one of them out"
            )
        held_out = open_dataset(val) if val else None
        run = module.train(open_dataset(dataset), out, kind(**options), val=held_out, quiet=quiet)
        if not distributed_from().first:
            return
        if json:
            print_json(run.info.model_dump(mode="json"))
            return
        measured = ", ".join(f"{name} {value:.4g}" for name, value in run.info.metrics.items())
        typer.echo(
            f"{run.path}: {run.info.steps:,} steps, {run.info.samples_seen:,} samples seen; {measured}"
        )

    command.__doc__ = inspect.getdoc(module)
    command.__signature__ = inspect.Signature(fixed + _options(kind, defaults))  # type: ignore[attr-defined]
    app = plain_app(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=PlainCommand)(report_errors(command))
    app(args=context.args, prog_name=context.command_path)


def _chosen_preset(args: list[str]) -> str | None:
    """Return what `--preset` says, which the options' defaults depend on."""
    for argument, following in zip(args, [*args[1:], ""], strict=True):
        if argument == "--preset":
            return following
        if argument.startswith("--preset="):
            return argument.partition("=")[2]
    return None


def _options(config: type[LoopConfig], defaults: Mapping[str, Any]) -> list[inspect.Parameter]:
    """Return an option for each field of a config, the method's own first."""
    from train.loop.config import RUNTIME_ONLY, LoopConfig

    hints, help_of = typing.get_type_hints(config), _arguments(config)
    shared = inspect.signature(LoopConfig).parameters
    images = ("stem", "image_size", "crop_from", "min_area")
    every = inspect.signature(config).parameters
    fields = {name: p for name, p in every.items() if name not in shared or name in images} | dict(every)

    def panel(name: str) -> str:
        if name not in shared or name in images:
            return "Model, images and loss"
        return "Machine and files" if name in RUNTIME_ONLY else "Learning"

    return [
        _parameter(
            name,
            Annotated[hints[name], typer.Option(help=_sentence(help_of[name]), rich_help_panel=panel(name))],
            defaults.get(name, parameter.default),
        )
        for name, parameter in fields.items()
    ]


def _arguments(config: type) -> dict[str, str]:
    """Read the `Args:` of a config's docstring, and of those it extends."""
    from curate.recipes.signatures import documented

    texts: dict[str, str] = {}
    for owner in reversed(config.__mro__[:-1]):
        texts |= documented(inspect.cleandoc(owner.__doc__ or ""))
    return texts


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
