"""Who comes when: the order of an epoch as a pure function of the samples' chances and the epoch's number."""

# N samples of a dataset, L places of an epoch

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from curate.errors import RecipeError
from train import chances
from train.chances import Chances, Passes

BLOCK_SAMPLES = 256
WINDOW_BLOCKS = 16


class Turn(NamedTuple):
    """An epoch: the row at each place, and how often each was seen before (which decides its crop)."""

    rows: np.ndarray  # L integers
    passes: Passes


class Order(Protocol):
    """An order of L places an epoch."""

    def __len__(self) -> int: ...

    def turn(self, epoch: int) -> Turn:
        """Return the order of an epoch."""


class Shuffled:
    """Every sample once, in an order that any other is as likely as; it follows the keys, not their places."""

    def __init__(self, chances_N: Chances) -> None:
        self.chances_N = chances_N

    def __len__(self) -> int:
        return len(self.chances_N)

    def turn(self, epoch: int) -> Turn:
        """Sort by the chance of the epoch."""
        return Turn(_argsort(chances.stir(self.chances_N, epoch, "order")), epoch)


class Straight:
    """Every sample once, in the manifest's order."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def turn(self, epoch: int) -> Turn:
        """Return the same each time."""
        return Turn(np.arange(self.samples), epoch)


class Blocks:
    """Every sample once; blocks of neighbours in the manifest stay near each other, so few reads fetch many.

    Blocks of `block_samples` rows come in an order by chance; in each window of `window_blocks` of them the
    samples are shuffled. What an epoch shows at a time is thus drawn from `window_blocks` places of the set.
    """

    def __init__(self, chances_N: Chances, block_samples: int, window_blocks: int) -> None:
        if block_samples < 1 or window_blocks < 1:
            raise RecipeError(
                f"a block of {block_samples} samples, a window of {window_blocks} blocks",
                hint="both must be 1 or more",
            )
        self.chances_N = chances_N
        self.block_samples = block_samples
        self.window_samples = block_samples * window_blocks

    def __len__(self) -> int:
        return len(self.chances_N)

    def turn(self, epoch: int) -> Turn:
        """Sort the blocks by the chance of their first samples, then each window by that of its samples."""
        firsts = np.arange(0, len(self), self.block_samples)
        blocks = firsts[_argsort(chances.stir(self.chances_N[firsts], epoch, "blocks"))]
        # The short block at the manifest's end may stand anywhere, so windows are counted in samples.
        lengths = np.minimum(self.block_samples, len(self) - blocks)
        rows = np.repeat(blocks - np.cumsum(lengths) + lengths, lengths) + np.arange(len(self))
        stirred = chances.stir(self.chances_N[rows], epoch, "order")
        window = np.arange(len(self)) // self.window_samples
        return Turn(rows[np.lexsort((stirred, window))], epoch)


class Mixture:
    """Samples of several datasets, by weight: each epoch has exactly so many of each.

    A dataset gives its samples in passes over itself, each shuffled; an epoch takes up where the last one
    left it, so no sample comes twice before all have come once.

    Args:
        parts: the chances of each dataset's samples; their rows are numbered one dataset after another.
        weights: shares of the epoch, in any unit.
        samples: places of an epoch.
    """

    def __init__(self, parts: Sequence[Chances], weights: Sequence[float], samples: int) -> None:
        if len(parts) != len(weights) or not all(w > 0 for w in weights):
            raise RecipeError(
                f"{len(parts)} datasets with the weights {list(weights)}",
                hint="give each dataset a weight above 0",
            )
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])[:-1]
        self.counts = _apportion(weights, samples)
        if 0 in self.counts:
            raise RecipeError(
                f"{samples} samples an epoch leave none for a dataset of weight {min(weights)}",
                hint="give it more weight or the epoch more samples",
            )

    def __len__(self) -> int:
        return sum(self.counts)

    def turn(self, epoch: int) -> Turn:
        """Take each dataset's share from its passes, and shuffle them all."""
        taken = [
            self._taken(part, int(start), count, epoch)
            for part, start, count in zip(self.parts, self.starts, self.counts, strict=True)
        ]
        rows = np.concatenate([rows for rows, _ in taken])
        passes = np.concatenate([passes for _, passes in taken])
        everyone = np.concatenate(list(self.parts))
        # A row can come twice in an epoch, of different passes: both together are a place's own number.
        shuffled = np.argsort(chances.stir(everyone[rows], passes, f"mixture/{epoch}"), kind="stable")
        return Turn(rows[shuffled], passes[shuffled])

    @staticmethod
    def _taken(part: Chances, start: int, count: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        first, last = epoch * count, (epoch + 1) * count
        rows, passes = [], []
        for number in range(first // len(part), (last - 1) // len(part) + 1):
            at = number * len(part)
            order = _argsort(chances.stir(part, number, "order"))[max(first - at, 0) : last - at]
            rows.append(order.astype(np.int64) + start)
            passes.append(np.full(len(order), number))
        return np.concatenate(rows), np.concatenate(passes)


def _apportion(weights: Sequence[float], total: int) -> list[int]:
    """Divide a total by weight into whole numbers that add up to it; the largest remainders are rounded up."""
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(one) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _argsort(stirred: Chances) -> np.ndarray:
    order = np.argsort(stirred, kind="stable")
    return order.astype(np.uint32) if len(order) < 2**32 else order  # half the memory over ten million rows
