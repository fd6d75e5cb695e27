"""The batches of an epoch: which rows each rank takes at each step of a run."""

# B samples of one rank's part of a batch, L places of an epoch

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from curate.errors import RecipeError, require
from train.data.epoch_order import Order


class RowsOfEpoch(NamedTuple):
    """Some rows, and the epoch that they are read in."""

    rows: np.ndarray  # B integers
    epoch: int


@dataclass(frozen=True)
class BatchRows:
    """What one rank reads at one step of an epoch."""

    epoch: int
    order: np.ndarray  # L: the row at each place of the epoch
    places: np.ndarray  # B, of the epoch

    def __len__(self) -> int:
        return len(self.places)

    def part(self, start: int = 0, stop: int | None = None) -> RowsOfEpoch:
        """Return the rows of the samples from `start` up to `stop`."""
        return RowsOfEpoch(self.order[self.places[start:stop]], self.epoch)


class BatchSampler:
    """The batches of a run. Every rank takes the same number of steps.

    Args:
        order: of the samples.
        batch_size: samples a step, over all ranks.
        rank: takes every `world_size`-th sample of each batch, so a step has the same samples for any world size.
        world_size: how many ranks share each batch.
        drop_last: drop an epoch's last samples where they do not fill a batch; else they are a smaller batch.
    """

    def __init__(
        self, order: Order, batch_size: int, *, rank: int = 0, world_size: int = 1, drop_last: bool = False
    ) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "1 or more")
        if not 0 <= rank < world_size or batch_size % world_size:
            raise RecipeError(
                f"rank {rank} of {world_size}, batches of {batch_size}",
                hint="ranks count from 0, and a batch must divide among them",
            )
        self.order = order
        self.batch_size = batch_size
        self.rank, self.world_size = rank, world_size
        self.drop_last = drop_last

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def rank_size(self) -> int:
        """The most samples that this rank takes at a step."""
        return self.batch_size // self.world_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BatchRows]:
        """Yield the batches of an epoch, from step `start` on."""
        order_L = self.order.rows(epoch)
        for step in range(start, self.steps_per_epoch):
            places_B = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            places_B = places_B[places_B < len(order_L)][self.rank :: self.world_size]
            yield BatchRows(epoch, order_L, places_B)

    def run(self, first: int) -> Iterator[BatchRows]:
        """Yield the batches of a run, from step `first` on, epoch after epoch, for ever."""
        if not self.steps_per_epoch:
            raise RecipeError(
                f"{len(self.order)} samples are fewer than a batch of {self.batch_size}",
                hint="take smaller batches",
            )
        epoch, start = divmod(first, self.steps_per_epoch)
        yield from self.epoch(epoch, start)
        for later in itertools.count(epoch + 1):
            yield from self.epoch(later)
