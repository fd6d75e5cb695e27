"""Chance that belongs to the sample and the epoch, for whole columns at once.

`curate.chance` gives each key a number by MD5; here that number is stirred with the epoch and the decision by
splitmix64, in numpy, so an order of a million samples takes a tenth of a second and depends on nothing else.
"""

# N samples

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.chance import chance

Chances = np.ndarray  # uint64, uniform over 0..2**64-1


def of_keys(keys: Sequence[str], seed: int) -> Chances:
    """Return the chance of each key, what `stir` starts from."""
    return np.fromiter((chance(key, seed, "loader") for key in keys), np.uint64, count=len(keys))


def stir(chances_N: Chances, epoch: int, salt: str) -> Chances:
    """Return fresh numbers for one decision ("order", "crop/x") in one epoch.

    Source: Steele, Lea and Flood, OOPSLA 2014 (splitmix64), https://doi.org/10.1145/2714064.2660195
    """
    step = np.uint64(chance(str(epoch), 0, salt))
    mixed = chances_N ^ step
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def uniform(chances_N: Chances, epoch: int, salt: str) -> np.ndarray:
    """Return float64 in [0, 1) for one decision in one epoch."""
    return (stir(chances_N, epoch, salt) >> np.uint64(11)) * 2.0**-53


def order(chances_N: Chances, epoch: int) -> np.ndarray:
    """Return the samples' numbers in the order of an epoch, int64; it follows the keys, not their places."""
    return np.argsort(stir(chances_N, epoch, "order"), kind="stable")
