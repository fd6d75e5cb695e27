"""Few-shot draws, and the validation images that come out of them.

Who is drawn follows from the chance of the image's key: 1 shot is inside 5, and 5 inside 10, of one seed. Where an
image may have several labels, k shots are k images that have the class, for each class.
"""

# N images of the training split, K images of a draw, C classes

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.errors import RecipeError
from curate.rows.chance import chance

# Images of each class; all; or so many in all, whatever their classes, such as VTAB's "total-1000".
Shots = int | str
FULL = "full"
TOTAL = "total-"
Sampling = Literal["distinct", "replacement"]


@dataclass(frozen=True)
class TrainSubset:
    """Images to train on.

    Args:
        shots: what was asked for.
        seed: what they were drawn by.
        rows: their K positions in the training split, ascending.
        targets: their labels: int64 targets_K, or int8 targets_KC.
        keys: their keys; of one that was drawn again, with its number.
        short_classes: how many classes have fewer than `shots` images.
        sampling: whether those give all they have ("distinct"), or `shots` images with some more than once.
    """

    shots: Shots
    seed: int
    rows: np.ndarray
    targets: np.ndarray
    keys: tuple[str, ...]
    short_classes: int
    sampling: Sampling = "distinct"

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, positions: np.ndarray) -> TrainSubset:
        """Return the images at some positions of the draw."""
        return dataclasses.replace(
            self,
            rows=self.rows[positions],
            targets=self.targets[positions],
            keys=tuple(self.keys[i] for i in positions.tolist()),
        )


@dataclass(frozen=True)
class Fold:
    """A draw divided in two: positions in it to train on, and to validate on."""

    train: np.ndarray
    validation: np.ndarray


def parse_shots(values: Iterable[int | str]) -> list[Shots]:
    """Check numbers of shots, and return each once, in the order given.

    Raises:
        RecipeError: one is neither a whole number from 1, nor "full", nor "total-" and a number.
    """
    parsed: list[Shots] = []
    for value in values:
        number = str(value).removeprefix(TOTAL)
        shots: Shots
        if value == FULL:
            shots = FULL
        elif not isinstance(value, bool) and number.isdecimal() and int(number) > 0:
            shots = f"{TOTAL}{int(number)}" if str(value).startswith(TOTAL) else int(number)
        else:
            raise RecipeError(
                f"shots: {value!r} is no number of images a class",
                hint="a whole number from 1; full; or total-1000 for so many in all",
            )
        if shots not in parsed:
            parsed.append(shots)
    if not parsed:
        raise RecipeError("no shots given", hint="such as 1,5,10,full")
    return parsed


def draw_shots(
    keys: Sequence[str],
    targets: np.ndarray,
    shots: Shots,
    seed: int,
    *,
    sampling: Sampling = "distinct",
) -> TrainSubset:
    """Draw exactly `shots` images of each class, or all of a class that has fewer.

    Args:
        keys: of the training split.
        targets: int64 targets_N, or int8 targets_NC.
        shots: see `Shots`.
        seed: who is drawn.
        sampling: "replacement" draws `shots` images of a class that has fewer with replacement, as Entezari et al.
            did: some come several times and some not at all.
    """
    short = 0
    if shots == FULL:
        rows_K = np.arange(len(keys))
    elif isinstance(shots, str):
        total = int(shots.removeprefix(TOTAL))
        order_N = np.array(_by_chance(keys, seed, "transfer/total"), dtype=np.int64)
        rows_K = np.sort(order_N[:total])
    else:
        once, again = [], []
        for name, rows_M in enumerate(rows_by_class(targets)):
            short += len(rows_M) < shots
            order_M = rows_M[_by_chance([keys[i] for i in rows_M], seed, "transfer/shots")]
            if sampling == "replacement" and len(rows_M) < shots:
                slots = [f"class {name}, slot {slot}" for slot in range(shots)]
                again.append(order_M[[chance(slot, seed, "transfer/slots") % len(rows_M) for slot in slots]])
            else:
                once.append(order_M[:shots])
        distinct = (
            np.unique(np.concatenate(once)) if once else np.empty(0, np.int64)
        )  # one image for several classes
        rows_K = np.sort(np.concatenate([distinct, *again]))
    return TrainSubset(shots, seed, rows_K, targets[rows_K], _named(keys, rows_K), int(short), sampling)


def _named(keys: Sequence[str], rows_K: np.ndarray) -> tuple[str, ...]:
    """Return the keys of rows, each that comes again with a number."""
    seen: Counter[int] = Counter()
    named = []
    for row in rows_K.tolist():
        named.append(f"{keys[row]}#{seen[row]}" if seen[row] else keys[row])
        seen[row] += 1
    return tuple(named)


def rows_by_class(targets: np.ndarray) -> list[np.ndarray]:
    """Return the rows that have each class."""
    if targets.ndim == 2:
        return [np.flatnonzero(column == 1) for column in targets.T]
    order = np.argsort(targets, kind="stable")
    return np.split(order, np.cumsum(np.bincount(targets))[:-1])


def make_folds(drawn: TrainSubset, *, count: int) -> list[Fold]:
    """Cut a draw into `count` folds by chance, each class evenly; every fold is one to choose by.

    A draw whose largest class has fewer than `count` images gives as many folds as that; one with a single
    image of each class gives none. The only image of a class is fitted on in every fold, so none lacks one. An image
    that was drawn several times is in one fold. An image of several labels counts for the rarest of them.
    """
    own_K = _rarest(drawn.targets)
    first_K = np.unique(drawn.rows, return_index=True)[1]
    rank_K, size_K = chance_ranks(
        [drawn.keys[i] for i in first_K], own_K[first_K], seed=drawn.seed, salt="transfer/fold"
    )
    count = min(count, int(size_K.max()))
    if count < 2:
        return []
    fold_F = np.where(size_K > 1, rank_K % count, -1)
    fold_K = fold_F[np.searchsorted(drawn.rows[first_K], drawn.rows)]
    return [Fold(np.flatnonzero(fold_K != fold), np.flatnonzero(fold_K == fold)) for fold in range(count)]


def _rarest(targets: np.ndarray) -> np.ndarray:
    """Return one class of each row: its own, or the rarest of its several; of those without any, one more."""
    if targets.ndim == 1:
        return targets
    has_KC = targets == 1
    size_C = has_KC.sum(axis=0)
    rarity_KC = np.where(has_KC, size_C, len(targets) + 1)
    return np.where(has_KC.any(axis=1), rarity_KC.argmin(axis=1), targets.shape[1])


def chance_ranks(
    keys: Sequence[str], labels_N: np.ndarray, *, seed: int, salt: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's rank in its class by chance (ties by key), from 0, and the size of its class."""
    rank_N, size_N = np.empty(len(keys), dtype=np.int64), np.empty(len(keys), dtype=np.int64)
    for rows_M in rows_by_class(labels_N):
        order_M = rows_M[_by_chance([keys[i] for i in rows_M], seed, salt)]
        rank_N[order_M] = np.arange(len(order_M))
        size_N[order_M] = len(order_M)
    return rank_N, size_N


def _by_chance(keys: Sequence[str], seed: int, salt: str) -> list[int]:
    """Return the positions of keys in the order of their chance, ties by key."""
    return sorted(range(len(keys)), key=lambda i: (chance(keys[i], seed, salt), keys[i]))
