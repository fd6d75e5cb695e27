"""Few-shot draws, and the validation images that come out of them.

Who is drawn follows from the chance of the image's key: 1 shot is inside 5, and 5 inside 10, of one seed.
"""

# N images of the training split, K images of a draw

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.chance import chance
from curate.errors import RecipeError

Shots = int | Literal["full"]


@dataclass(frozen=True)
class Draw:
    """Images to train on.

    Args:
        shots: images of each class, or "full" for all.
        seed: what they were drawn by.
        rows: their K positions in the training split, ascending.
        labels: their labels.
        keys: their keys.
        short_classes: how many classes have fewer than `shots` images, and give all they have.
    """

    shots: Shots
    seed: int
    rows: np.ndarray
    labels: np.ndarray
    keys: tuple[str, ...]
    short_classes: int

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Fold:
    """A draw cut in two: positions in the draw to fit on, and to choose by."""

    fit: np.ndarray
    choose: np.ndarray


def parse_shots(values: Iterable[int | str]) -> list[Shots]:
    """Check numbers of shots, and return each once, in the order given.

    Raises:
        RecipeError: one is neither a whole number from 1 nor "full".
    """
    parsed: list[Shots] = []
    for value in values:
        shots: Shots
        if value == "full":
            shots = "full"
        elif not isinstance(value, bool) and str(value).isdecimal() and int(value) > 0:
            shots = int(value)
        else:
            raise RecipeError(
                f"shots: {value!r} is no number of images a class", hint="a whole number from 1, or full"
            )
        if shots not in parsed:
            parsed.append(shots)
    if not parsed:
        raise RecipeError("no shots given", hint="such as 1,5,10,full")
    return parsed


def draw(keys: Sequence[str], labels_N: np.ndarray, shots: Shots, seed: int) -> Draw:
    """Draw exactly `shots` images of each class, or all of a class that has fewer.

    Args:
        keys: of the training split.
        labels_N: int64, as many as keys.
    """
    if shots == "full":
        rows_K, short = np.arange(len(keys)), 0
    else:
        rank_N, size_N = ranks(keys, labels_N, seed=seed, salt="transfer/shots")
        rows_K = np.flatnonzero(rank_N < shots)
        short = len(np.unique(labels_N[size_N < shots]))
    return Draw(shots, seed, rows_K, labels_N[rows_K], tuple(keys[i] for i in rows_K.tolist()), short)


def folds(drawn: Draw, *, count: int) -> list[Fold]:
    """Cut a draw into `count` folds by chance, each class evenly; every fold is one to choose by.

    A draw whose largest class has fewer than `count` images gives as many folds as that; one with a single
    image of each class gives none. The only image of a class is fitted on in every fold, so none lacks one.
    """
    rank_K, size_K = ranks(drawn.keys, drawn.labels, seed=drawn.seed, salt="transfer/fold")
    count = min(count, int(size_K.max()))
    if count < 2:
        return []
    fold_K = np.where(size_K > 1, rank_K % count, -1)
    return [Fold(np.flatnonzero(fold_K != fold), np.flatnonzero(fold_K == fold)) for fold in range(count)]


def ranks(
    keys: Sequence[str], labels_N: np.ndarray, *, seed: int, salt: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's rank in its class by chance (ties by key), from 0, and the size of its class."""
    chances = [chance(key, seed, salt) for key in keys]
    order = sorted(range(len(keys)), key=lambda i: (int(labels_N[i]), chances[i], keys[i]))
    sizes = np.bincount(labels_N)
    before = np.cumsum(sizes) - sizes  # images of the classes before
    rank_N = np.empty(len(keys), dtype=np.int64)
    rank_N[order] = np.arange(len(keys)) - before[labels_N[order]]
    return rank_N, sizes[labels_N]
