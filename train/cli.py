"""The commands of `train`: parse, call one function, print."""

from __future__ import annotations

import typer

train_app = typer.Typer(help="Pre-train a model on a dataset.", no_args_is_help=True)
transfer_app = typer.Typer()
