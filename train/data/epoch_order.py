"""The order of an epoch: a pure function of the samples' chances and the epoch's number."""

# N samples of a dataset, L places of an epoch

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from curate.errors import require_one_of
from train.augment import chance
from train.augment.chance import Chances

OrderName = Literal["shuffled", "blocks", "manifest"]

BLOCK_SAMPLES = 256
WINDOW_BLOCKS = 16


class Order(Protocol):
    """An order of L places an epoch."""

    def __len__(self) -> int: ...

    def rows(self, epoch: int) -> np.ndarray:
        """Return the row at each place of an epoch: L whole numbers."""


class ShuffledOrder:
    """Every sample once; all orders are equally likely. The order follows from the keys, not from their places."""

    def __init__(self, chances_N: Chances) -> None:
        self.chances_N = chances_N

    def __len__(self) -> int:
        return len(self.chances_N)

    def rows(self, epoch: int) -> np.ndarray:
        """Sort the rows by their chance in this epoch."""
        return _argsort(chance.stir(self.chances_N, epoch, "order"))


class ManifestOrder:
    """Every sample once, in the manifest's order."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def rows(self, epoch: int) -> np.ndarray:
        """Return 0..N-1 in every epoch."""
        return np.arange(self.samples)


class BlockOrder:
    """Every sample once; neighbours in the manifest stay near each other, so a few reads fetch many samples.

    Blocks of `block_samples` rows come in random order. In each window of `window_blocks` blocks, the samples are
    shuffled. So the samples of a batch come from `window_blocks` places of the dataset.
    """

    def __init__(self, chances_N: Chances, block_samples: int, window_blocks: int) -> None:
        self.chances_N = chances_N
        self.block_samples = block_samples
        self.window_samples = block_samples * window_blocks

    def __len__(self) -> int:
        return len(self.chances_N)

    def rows(self, epoch: int) -> np.ndarray:
        """Sort the blocks by the chance of their first samples, then each window by that of its samples."""
        firsts = np.arange(0, len(self), self.block_samples)
        blocks = firsts[_argsort(chance.stir(self.chances_N[firsts], epoch, "blocks"))]
        # The short block at the manifest's end may stand anywhere, so windows are counted in samples.
        lengths = np.minimum(self.block_samples, len(self) - blocks)
        rows = np.repeat(blocks - np.cumsum(lengths) + lengths, lengths) + np.arange(len(self))
        stirred = chance.stir(self.chances_N[rows], epoch, "order")
        window = np.arange(len(self)) // self.window_samples
        return rows[np.lexsort((stirred, window))]


def order_of(chances_N: Chances, name: OrderName) -> Order:
    """Return the order of that name over samples with these chances.

    Raises:
        RecipeError: there is no such order.
    """
    require_one_of(OrderName, "order", name)
    if name == "blocks":
        return BlockOrder(chances_N, BLOCK_SAMPLES, WINDOW_BLOCKS)
    return ManifestOrder(len(chances_N)) if name == "manifest" else ShuffledOrder(chances_N)


def _argsort(stirred: Chances) -> np.ndarray:
    order = np.argsort(stirred, kind="stable")
    return order.astype(np.uint32) if len(order) < 2**32 else order  # half the memory over ten million rows
