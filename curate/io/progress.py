"""Progress of work: reported to an object that may show it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from curate.errors import printable

LINE_S = 60.0  # between two lines in a log


class Quiet:
    """Accept reports and show nothing; the default of the library."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        """Begin a piece of work.

        Args:
            total: units of work; None if unknown.
        """
        yield Stage()

    def say(self, line: str) -> None:
        """Report a line of information."""

    def warn(self, line: str) -> None:
        """Report what a person must see before the work begins, even with `--quiet`."""


class Warnings(Quiet):
    """Show warnings on stderr, and nothing else."""

    def warn(self, line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)


class Stage:
    """A piece of work in progress."""

    def advance(self, done: int = 1, total: int | None = None) -> None:
        """Report finished units; `total` corrects the number of all units."""

    def tell(self, line: str) -> None:
        """Report the state in a line that replaces the one before."""


class Bars(Warnings):
    """Show a bar for each stage on stderr, and lines above the bars."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        if not self.console.is_terminal:  # a log file wants lines, not bars
            yield _Lines(self.console, title)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bars:
            yield _Bar(bars, bars.add_task(printable(title), total=total), title)

    def say(self, line: str) -> None:
        self.console.print(printable(line), soft_wrap=not self.console.is_terminal)


class _Lines(Stage):
    """Show the state in a line a minute."""

    def __init__(self, console, title: str) -> None:
        self.console, self.title, self.last = console, title, time.monotonic()

    def tell(self, line: str) -> None:
        if time.monotonic() - self.last >= LINE_S:
            self.last = time.monotonic()
            self.console.print(printable(f"{self.title}: {line}"), soft_wrap=True)


class _Bar(Stage):
    def __init__(self, bars, task, title: str) -> None:
        self.bars, self.task, self.title = bars, task, title

    def tell(self, line: str) -> None:
        self.bars.update(self.task, description=printable(f"{self.title}: {line}"))

    def advance(self, done: int = 1, total: int | None = None) -> None:
        if total is not None:
            self.bars.update(self.task, total=total)
        self.bars.advance(self.task, done)
