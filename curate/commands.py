"""What all commands share: common options, and how errors reach a person."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.errors import CurateError, RecipeError, printable

if TYPE_CHECKING:
    from curate.progress import Quiet

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Fill in a variable; repeatable.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads; one a core by default. Changes only the time.")
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", metavar="local|ray", help="What writes the shards: threads here, or Ray.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what goes wrong for a person into a message on stderr and the right exit code."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except CurateError as error:
            rank = int(
                os.environ.get("RANK", "0") or 0
            )  # of several processes, each may have its own trouble
            said = printable(f"rank {rank}: error: {error}" if rank else f"error: {error}")
            typer.echo(said, err=True)
            raise typer.Exit(error.code) from None
        except (KeyboardInterrupt, RuntimeError) as error:
            # DuckDB has a word of its own for Ctrl-C.
            if isinstance(error, RuntimeError) and str(error) != "Query interrupted":
                raise
            typer.echo("stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return command


def settings(pairs: list[str] | None) -> dict[str, str]:
    """Read `NAME=VALUE` pairs."""
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set {pair}: not NAME=VALUE", hint="write `--set imagenet=/data/imagenet`")
        found[name] = value
    return found


def bars(quiet: bool) -> Quiet:
    """Return what shows progress."""
    from curate.progress import Bars, Warnings

    return Warnings() if quiet else Bars()
