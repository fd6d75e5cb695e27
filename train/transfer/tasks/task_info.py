"""What is known of a task before it is opened, and the request to open one: its argument, the folders of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import MissingError, RecipeError

if TYPE_CHECKING:
    from train.transfer.tasks.task import Metric, TaskKind

NO_DATA = "nothing is downloaded unasked"


@dataclass(frozen=True)
class TaskInfo:
    """A task in the registry.

    Args:
        name: of the task, or of its family where an argument completes it.
        about: one line.
        source: the paper or page that the task is from.
        splits: what is trained on and what is tested on, as published.
        get: how to get the data, and what it looks like below `--data`.
        open: opens it; returns the task's partitions, one where it has none.
        metric: that the task is usually reported in.
        kind: of the protocols that measure it.
        argument: how an argument is written, such as `:PATH` or `[:PARTITION]`; empty for none.
        sizes: classes, training images and test images as published; empty where that depends.
    """

    name: str
    about: str
    source: str
    splits: str
    get: str
    open: Callable[[TaskRequest], Sequence[Any]]
    metric: Metric = "top1"
    kind: TaskKind = "classification"
    argument: str = ""
    sizes: tuple[int, int, int] | None = None

    @property
    def usage(self) -> str:
        """How the task is written."""
        return self.name + self.argument

    @property
    def size(self) -> str:
        """Classes, training images and test images, as published."""
        return " / ".join(f"{number:,}" for number in self.sizes) if self.sizes else "as found"


@dataclass(frozen=True)
class TaskRequest:
    """A request to open a task.

    Args:
        info: of the task.
        argument: the text after the colon; None without one.
        data: folders with what the user has downloaded.
    """

    info: TaskInfo
    argument: str | None = None
    data: tuple[Path, ...] = field(default=())

    def no_argument(self) -> None:
        """Refuse an argument.

        Raises:
            RecipeError: there is one.
        """
        if self.argument is not None:
            name = self.info.name
            raise RecipeError(
                f"task {name} takes no argument, and got {self.argument!r}", hint=f"write: {name}"
            )

    def partition(self, count: int, default: str = "all") -> list[int]:
        """Return the official partitions asked for, from 1: one, or all of `count`.

        Raises:
            RecipeError: there is no such partition.
        """
        number = default if self.argument is None else self.argument
        if number == "all":
            return list(range(1, count + 1))
        if not number.isdecimal() or not 1 <= int(number) <= count:
            raise RecipeError(
                f"task {self.info.name}:{number}: no such partition", hint=f"1 to {count}, or all"
            )
        return [int(number)]

    def find(self, *paths: str) -> Path:
        """Return the first of some paths that exists below a folder of `--data`.

        Args:
            paths: relative to a folder of `--data`, the likeliest first; all name the same file or folder, in the
                layouts that people have. The first part may be left out: `--data` may name that folder itself.

        Raises:
            MissingError: none exists, or no folder was given.
            RecipeError: a folder of `--data` does not exist.
        """
        name = self.info.name
        if not self.data:
            raise MissingError(f"task {name}: its data is needed, and {NO_DATA}", hint=self.info.get)
        for root in self.data:
            if not root.is_dir():
                raise RecipeError(f"--data {root}: there is no such folder", hint=self.info.get)
        for root in self.data:
            for path in paths:
                first, _, rest = path.partition("/")
                if (root / path).exists():
                    return root / path
                if root.name == first and (root / rest).exists():
                    return root / rest
        tried = ", ".join(str(root / path) for root in self.data for path in paths)
        raise MissingError(f"task {name}: none of {tried}", hint=f"{self.info.get} ({NO_DATA})")
