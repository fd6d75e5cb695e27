"""An order cut into steps: what each rank does at each step of a run."""

# B samples of one rank's part of a batch, L places of an epoch

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from curate.errors import RecipeError, require, require_one_of
from train.augment.chance import Passes
from train.data.epoch_order import Order, Turn

Last = Literal["keep", "drop", "pad"]


class Part(NamedTuple):
    """Some rows, and how often each was seen before."""

    rows: np.ndarray  # B integers
    passes: Passes


@dataclass(frozen=True)
class Step:
    """What one rank does at one step of an epoch."""

    epoch: int
    turn: Turn
    places: np.ndarray  # B, of the epoch

    def __len__(self) -> int:
        return len(self.places)

    def part(self, start: int = 0, stop: int | None = None) -> Part:
        """Return the rows of the samples from `start` up to `stop`."""
        places = self.places[start:stop]
        passes = self.turn.passes
        return Part(self.turn.rows[places], passes if isinstance(passes, int) else passes[places])


class Steps:
    """The steps of a run. Every rank takes the same number of them, whatever `last` says.

    Args:
        order: of the samples.
        batch_size: samples a step, over all ranks.
        rank: takes every `ranks`-th sample of each batch, so what is learned at a step is the same for any number.
        ranks: how many there are.
        last: what becomes of an epoch's last samples where they do not fill a batch.
    """

    def __init__(self, order: Order, batch_size: int, *, rank: int, ranks: int, last: Last) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "1 or more")
        require_one_of(Last, "last", last)
        if not 0 <= rank < ranks or batch_size % ranks:
            raise RecipeError(
                f"rank {rank} of {ranks}, batches of {batch_size}",
                hint="ranks count from 0, and a batch must divide among them",
            )
        self.order = order
        self.batch_size = batch_size
        self.rank, self.ranks = rank, ranks
        self.last = last

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole + (1 if rest and self.last != "drop" else 0)

    @property
    def part_size(self) -> int:
        """The most samples that this rank gets at a step."""
        return self.batch_size // self.ranks

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """Yield the steps of an epoch from one on."""
        turn = self.order.turn(epoch)
        for step in range(start, self.per_epoch):
            places_B = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            if self.last == "pad":
                places_B %= len(turn.rows)
            places_B = places_B[places_B < len(turn.rows)][self.rank :: self.ranks]
            yield Step(epoch, turn, places_B)

    def run(self, first: int) -> Iterator[Step]:
        """Yield the steps of a run from one on, epoch after epoch, for ever."""
        if not self.per_epoch:
            raise RecipeError(
                f"{len(self.order)} samples are fewer than a batch of {self.batch_size}",
                hint="take smaller batches",
            )
        epoch, start = divmod(first, self.per_epoch)
        yield from self.epoch(epoch, start)
        for later in itertools.count(epoch + 1):
            yield from self.epoch(later)
