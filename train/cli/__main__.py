"""The command line `curate`: the commands of both packages. `curate` itself imports nothing of `train`."""

from __future__ import annotations

from curate.cli.app import app
from train.cli.app import more_app, train_app  # neither imports torch

app.add_typer(train_app, name="train")
app.registered_commands += more_app.registered_commands


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
