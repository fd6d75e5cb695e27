"""What a task in the registry says of itself, and what is asked for: a name, an argument, folders of data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.errors import MissingError, RecipeError

if TYPE_CHECKING:
    from train.transfer.tasks.task import Kind, Metric

NO_DATA = "nothing is downloaded unasked"


@dataclass(frozen=True)
class Listing:
    """A task that can be named.

    Args:
        name: of the task, or of its family where an argument completes it.
        about: one line.
        source: the paper or page that the task is from.
        splits: what is trained on and what is tested on, as published.
        get: how to get the data, and what it looks like below `--data`.
        open: opens it; what it returns are the task's partitions, one where it has none.
        metric: that the task is usually reported in.
        kind: what protocols it is for.
        argument: how an argument is written, such as `:PATH` or `[:PARTITION]`; empty for none.
        sizes: classes, training images and test images as published; empty where that depends.
    """

    name: str
    about: str
    source: str
    splits: str
    get: str
    open: Callable[[Request], Sequence[Any]]
    metric: Metric = "top1"
    kind: Kind = "classification"
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
class Request:
    """What was asked for: a task, its argument, and where data may lie.

    Args:
        listing: of the task.
        argument: what stands after the colon; None without one.
        data: folders that hold what the user has downloaded.
    """

    listing: Listing
    argument: str | None = None
    data: tuple[Path, ...] = field(default=())

    def no_argument(self) -> None:
        """Refuse an argument.

        Raises:
            RecipeError: there is one.
        """
        if self.argument is not None:
            name = self.listing.name
            raise RecipeError(
                f"task {name} takes no argument, and got {self.argument!r}", hint=f"write: {name}"
            )

    def partition(self, count: int, default: str = "all") -> list[int]:
        """Return the official partitions asked for, from 1: one, or all of `count`.

        Raises:
            RecipeError: there is no such partition.
        """
        told = default if self.argument is None else self.argument
        if told == "all":
            return list(range(1, count + 1))
        if not told.isdecimal() or not 1 <= int(told) <= count:
            raise RecipeError(
                f"task {self.listing.name}:{told}: no such partition", hint=f"1 to {count}, or all"
            )
        return [int(told)]

    def find(self, *places: str) -> Path:
        """Return the first of some files or folders that is there, below a folder of `--data`.

        Args:
            places: paths relative to a folder of `--data`, the likeliest first; all name the same thing, in the
                layouts in which people have it. The first part may be left out: `--data` may name it itself.

        Raises:
            MissingError: none is there, or no folder was given.
            RecipeError: a folder of `--data` is not there.
        """
        name = self.listing.name
        if not self.data:
            raise MissingError(f"task {name}: its data is needed, and {NO_DATA}", hint=self.listing.get)
        for root in self.data:
            if not root.is_dir():
                raise RecipeError(f"--data {root}: there is no such folder", hint=self.listing.get)
        for root in self.data:
            for place in places:
                first, _, rest = place.partition("/")
                if (root / place).exists():
                    return root / place
                if root.name == first and (root / rest).exists():
                    return root / rest
        looked = ", ".join(str(root / place) for root in self.data for place in places)
        raise MissingError(f"task {name}: none of {looked}", hint=f"{self.listing.get} ({NO_DATA})")
