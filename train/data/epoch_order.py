"""Who comes when: the order of an epoch as a pure function of the samples' chances and the epoch's number."""

# N samples of a dataset, L places of an epoch

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np

from curate.errors import RecipeError, require, require_one_of
from train.augment import chance
from train.augment.chance import Chances, Passes

OrderName = Literal["shuffled", "blocks", "manifest"]

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
        return Turn(_argsort(chance.stir(self.chances_N, epoch, "order")), epoch)


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
        blocks = firsts[_argsort(chance.stir(self.chances_N[firsts], epoch, "blocks"))]
        # The short block at the manifest's end may stand anywhere, so windows are counted in samples.
        lengths = np.minimum(self.block_samples, len(self) - blocks)
        rows = np.repeat(blocks - np.cumsum(lengths) + lengths, lengths) + np.arange(len(self))
        stirred = chance.stir(self.chances_N[rows], epoch, "order")
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
        require(samples >= 1, "epoch_samples", samples, "1 or more")
        if len(parts) != len(weights) or not all(0 < w < math.inf for w in weights):
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
        taken = [self._taken(number, epoch) for number in range(len(self.parts))]
        rows, passes, stirred = map(np.concatenate, zip(*taken, strict=True))
        shuffled = np.argsort(stirred, kind="stable")
        return Turn(rows[shuffled], passes[shuffled])

    def _taken(self, number: int, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a dataset's rows in an epoch, their passes, and what the epoch is sorted by."""
        part, count = self.parts[number], self.counts[number]
        first, last = epoch * count, (epoch + 1) * count
        rows, passes = [], []
        for each in range(first // len(part), (last - 1) // len(part) + 1):
            at = each * len(part)
            order = _argsort(chance.stir(part, each, "order"))[max(first - at, 0) : last - at]
            rows.append(order.astype(np.int64))
            passes.append(np.full(len(order), each))
        own_rows, own_passes = np.concatenate(rows), np.concatenate(passes)
        # A row can come twice in an epoch, of different passes; a key in two datasets, which would stand together.
        stirred = chance.stir(part[own_rows], own_passes, f"mixture/{epoch}/{number}")
        return own_rows + self.starts[number], own_passes, stirred


def order_of(
    parts: Sequence[Chances],
    name: OrderName,
    *,
    weights: Sequence[float] | None = None,
    epoch_samples: int | None = None,
    block_samples: int = BLOCK_SAMPLES,
    window_blocks: int = WINDOW_BLOCKS,
) -> Order:
    """Return the order of one dataset's samples, or of several's; arguments as for `Loader`.

    Raises:
        RecipeError: options that contradict each other.
    """
    require_one_of(OrderName, "order", name)
    if len(parts) > 1:
        if name != "shuffled":
            raise RecipeError(f"several datasets in the order {name!r}", hint="they can only be shuffled")
        sizes = list(map(len, parts))
        return Mixture(
            parts,
            sizes if weights is None else weights,
            sum(sizes) if epoch_samples is None else epoch_samples,
        )
    if weights is not None or epoch_samples is not None:
        raise RecipeError("weights or epoch_samples with one dataset", hint="they say how several are mixed")
    if name == "blocks":
        return Blocks(parts[0], block_samples, window_blocks)
    return Straight(len(parts[0])) if name == "manifest" else Shuffled(parts[0])


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
