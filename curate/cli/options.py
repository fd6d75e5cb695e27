"""What all commands share: common options, and how errors reach a person."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.errors import CurateError, RecipeError, machine_error, printable

if TYPE_CHECKING:
    from curate.io.progress import Quiet

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Fill in a variable; repeatable.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Threads; one a core by default. Changes only the time.")
]
ExecutorOption = Annotated[
    str, typer.Option("--executor", metavar="local|ray", help="Write shards with threads here, or with Ray.")
]


def _permit(allow: bool) -> bool:
    from curate.io.web.sessions import LOOPBACK

    if allow:
        os.environ[LOOPBACK] = "1"  # where workers find it too
    return allow


AllowLoopback = Annotated[
    bool,
    typer.Option(
        "--allow-loopback", callback=_permit, help="Allow http URLs of this machine: a server of your own."
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def report_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what goes wrong for a person into a message on stderr and the right exit code."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()  # here, where a full disk can still be reported
        except CurateError as error:
            raise _ended(error) from None
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            _close_stdout()
            raise typer.Exit(0) from None
        except (KeyboardInterrupt, Exception) as error:
            # DuckDB has a word of its own for Ctrl-C.
            if isinstance(error, KeyboardInterrupt) or str(error) == "Query interrupted":
                typer.echo("stopped; the same command goes on from here", err=True)
                raise typer.Exit(130) from None
            if (fault := machine_error(error)) is None:
                raise
            try:
                sys.stdout.flush()
            except OSError:
                _close_stdout()
            raise _ended(fault) from None

    return command


def _ended(error: CurateError) -> typer.Exit:
    """Say what is wrong, and return what ends the command with its code."""
    rank = int(os.environ.get("RANK", "0") or 0)  # of several processes, each may have its own trouble
    typer.echo(printable(f"rank {rank}: error: {error}" if rank else f"error: {error}"), err=True)
    return typer.Exit(error.code)


def _close_stdout() -> None:
    """Let what is still to be printed go nowhere; else Python complains of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def settings(pairs: list[str] | None) -> dict[str, str]:
    """Read `NAME=VALUE` pairs."""
    values = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise RecipeError(f"--set {pair}: not NAME=VALUE", hint="write `--set imagenet=/data/imagenet`")
        values[name] = value
    return values


def bars(quiet: bool) -> Quiet:
    """Return what shows progress."""
    from curate.io.progress import Bars, Warnings

    return Warnings() if quiet else Bars()
