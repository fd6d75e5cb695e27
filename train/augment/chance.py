"""Chance that belongs to a sample and an epoch, for whole columns at once.

`curate.rows.chance` gives each key a number by MD5. Here splitmix64 mixes that number with the epoch and the decision,
in numpy. So the order of a million samples takes a tenth of a second and depends on nothing else.
"""

# N samples, B of them, D draws of a decision

from __future__ import annotations

import functools

import duckdb
import numpy as np
import pyarrow as pa

from curate.rows.chance import chance, chance_sql

Chances = np.ndarray  # uint64, uniform over 0..2**64-1


def of_keys(keys: pa.ChunkedArray | pa.Array, seed: int) -> Chances:
    """Return the chance of each key, what `stir` starts from."""
    with duckdb.connect() as con:
        con.register("rows", pa.table({"key": keys}))
        return con.sql(f"SELECT {chance_sql(seed, 'loader')} AS chance FROM rows").fetchnumpy()["chance"]


def mix(numbers: np.ndarray) -> np.ndarray:
    """Return uint64 numbers that look like chance, one for each of different numbers.

    Source: Steele, Lea and Flood, OOPSLA 2014 (splitmix64), https://doi.org/10.1145/2714064.2660195
    """
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def stir(chances_B: Chances, epoch: int, salt: str) -> Chances:
    """Return fresh numbers for one decision ("order", "crop/x") in one epoch."""
    return mix(chances_B ^ np.uint64(chance(str(epoch), 0, salt)))


def uniform(chances_B: Chances, epoch: int, salt: str) -> np.ndarray:
    """Return float64 in [0, 1) for one decision in one epoch."""
    return _share(stir(chances_B, epoch, salt))


def uniform_draws(stirred_B: Chances, draws: range) -> np.ndarray:
    """Return BxD float64 in [0, 1): one decision (what `stir` gave) drawn again and again, draws by number from 0."""
    steps_D = np.array([_draw(draw) for draw in draws], np.uint64)
    return _share(mix(stirred_B[:, None] ^ steps_D))


@functools.cache
def _draw(number: int) -> int:
    return chance(str(number), 0, "draw")


def _share(chances: Chances) -> np.ndarray:
    return (chances >> np.uint64(11)) * 2.0**-53


def of_view(chances_B: Chances, view: int) -> Chances:
    """Return chances as if each view of a sample, from 0, were a sample of its own; view 0 is the sample."""
    return stir(chances_B, 0, f"view/{view}") if view else chances_B


def fingerprint(chances_B: Chances, places_B: np.ndarray) -> int:
    """Return a number for which samples stood at which places of a run.

    Numbers of parts add up (modulo 2**64) to that of the whole, however it was cut into steps and ranks.
    """
    with np.errstate(over="ignore"):
        return int(mix(chances_B ^ mix(places_B.astype(np.uint64) + np.uint64(1))).sum(dtype=np.uint64))
