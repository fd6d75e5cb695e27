"""Progress that work reports and somebody may show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Quiet:
    """Takes reports and shows nothing; what the library uses unless told otherwise."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        """Begin a piece of work of so many units; None when that is not known."""
        yield Stage()

    def say(self, line: str) -> None:
        """Tell something worth a line."""


class Stage:
    """A piece of work under way."""

    def advance(self, done: int = 1, total: int | None = None) -> None:
        """Report so many more units done."""


class Bars(Quiet):
    """Shows a bar for each stage on stderr, and lines above them."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        if not self.console.is_terminal:  # a log file wants lines, not bars
            yield Stage()
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bars:
            yield _Bar(bars, bars.add_task(title, total=total))

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=not self.console.is_terminal)


class _Bar(Stage):
    def __init__(self, bars, task) -> None:
        self.bars, self.task = bars, task

    def advance(self, done: int = 1, total: int | None = None) -> None:
        if total is not None:
            self.bars.update(self.task, total=total)
        self.bars.advance(self.task, done)
