"""Which 64-bit perceptual hashes are near each other: an exact search that scales, and groups of what it finds."""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from curate.rows.relation import Rows

BITS = 64
DISTANCE = 8  # bits; finds 99 % of copies, and links fewer than one in a million pairs of other images
TELLING_BITS = (
    16  # a hash with fewer set is of stripes or of one colour: it says too little to be near another
)
WIDEST_BAND = 22  # bits; all values of a band within a radius are found by looking at 2 ** 22

_names = itertools.count()

Distance = Annotated[int, Field(ge=0, le=16)]


def near_query(a: str, b: str, distance: int, sizes: tuple[int, int] = (1 << 20, 1 << 20)) -> str:
    """Return SQL for the pairs (a, b) of hashes of two relations that differ in at most so many bits: all of them.

    The bits are cut into m bands, each with a radius, so that radii sum up to `distance` - m + 1: were all bands
    farther apart than their radius, the hashes would be more than `distance` apart. So only hashes are compared of
    which a band is within its radius: those of the smaller relation take all such values of the band, and are joined
    with the other's.

    Args:
        a, b: relations with a column `hash`.
        distance: in bits, 0 to 16.
        sizes: about how many hashes they have, by which the number of bands is chosen.
    """
    swapped = sizes[0] > sizes[1]
    few, many = (b, a) if swapped else (a, b)
    columns = "y.hash AS a, x.hash AS b" if swapped else "x.hash AS a, y.hash AS b"
    searches = []
    for shift, width, radius in _bands(distance, min(sizes), max(sizes)):
        part = f"(hash >> {shift}) & {2**width - 1}::UBIGINT"
        around = f"SELECT hash, {part} AS part FROM {few}"
        if radius:
            flips = (
                f"SELECT range::UBIGINT AS flips FROM range({2**width}) WHERE bit_count(range) <= {radius}"
            )
            around = f"SELECT hash, xor({part}, flips) AS part FROM {few}, ({flips})"
        searches.append(
            f"SELECT {columns} FROM ({around}) x JOIN (SELECT hash, {part} AS part FROM {many}) y USING (part) "
            f"WHERE bit_count(xor(x.hash, y.hash)) <= {distance}"
        )
    return " UNION ".join(searches)


def _bands(distance: int, few: int, many: int) -> list[tuple[int, int, int]]:
    """Return (first bit, width, radius) of each band, cut so that least is to be looked at."""

    def cost(bands: list[tuple[int, int, int]]) -> float:
        total = 0.0
        for _, width, radius in bands:
            count = _within(width, radius)
            total += few * count + many + few * many * count / 2**width + (2**width / 8 if radius else 0)
        return total

    cuts = (_cut(distance, number) for number in range(1, distance + 2))
    return min((cut for cut in cuts if all(w <= WIDEST_BAND or not r for _, w, r in cut)), key=cost)


def _cut(distance: int, number: int) -> list[tuple[int, int, int]]:
    widths = [BITS // number + (i < BITS % number) for i in range(number)]
    total = distance - number + 1
    radii = [total // number + (i < total % number) for i in range(number)]
    return [(sum(widths[:i]), widths[i], radii[i]) for i in range(number)]


def _within(width: int, radius: int) -> int:
    return sum(math.comb(width, flips) for flips in range(radius + 1))


def groups(pairs_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of some pairs, in order, and for each the smallest that pairs lead to from it."""
    from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    hashes_N, number_P2 = np.unique(pairs_P2, return_inverse=True)
    first_P, second_P = number_P2.reshape(-1, 2).T
    links = coo_matrix((np.ones(len(first_P), bool), (first_P, second_P)), shape=(len(hashes_N),) * 2)
    _, group_N = connected_components(links, directed=False)
    _, smallest_G = np.unique(group_N, return_index=True)  # the first of each, and they are in order
    return hashes_N, hashes_N[smallest_G[group_N]]


def comparable(rows: Rows, images: str) -> tuple[str, int]:
    """Return a view (key, phash, phash_square) of images, without hashes that say too little, and how many do."""
    name = f"comparable_{next(_names)}"
    telling = ", ".join(
        f"CASE WHEN bit_count({column}) >= {TELLING_BITS} THEN {column} END AS {column}"
        for column in ("phash", "phash_square")
    )
    rows.con.execute(f"CREATE TEMP VIEW {name} AS SELECT key, {telling} FROM {images}")
    count = rows.scalar(f"SELECT count(*) FROM {images} WHERE bit_count(phash) < {TELLING_BITS}")
    return name, 0 if rows.planning else count


def note_of(count: int) -> str:
    """Return what the ledger says of images whose hash says too little."""
    return f"{count:,} images not compared: their hash says too little (one colour, plain stripes)"


def near_pairs(con: Any, a: str, b: str, distance: int) -> str:
    """Search the images of a table for those of another, and return a table of the pairs (a, b) of near hashes.

    An image may be the middle square of another, or a stretched copy of that: each has two hashes, that of all of
    it and that of its square, and any two are compared.

    Args:
        a, b: relations with columns `phash` and `phash_square`.
    """
    name = f"near_{next(_names)}"
    both: list[str] = []
    for images in dict.fromkeys((a, b)):
        both.append(f"{name}_{len(both)}")
        con.execute(
            f"CREATE TEMP TABLE {both[-1]} AS SELECT hash FROM (SELECT phash AS hash FROM {images} "
            f"UNION SELECT phash_square FROM {images}) WHERE hash IS NOT NULL"
        )
    one, other = both[0], both[-1]
    sizes = [con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in (one, other)]
    query = near_query(one, other, distance, (sizes[0], sizes[1]))
    if not min(sizes):  # as while planning
        query = f"SELECT hash AS a, hash AS b FROM {one} WHERE false"
    con.execute(f"CREATE TEMP TABLE {name} AS {query}")
    for table in both:
        con.execute(f"DROP TABLE {table}")
    return name


def look_alikes(con: Any, images: str, distance: int) -> str:
    """Return a relation (key, same) of images: `same` is equal for what near hashes lead to from it, or NULL.

    The two hashes of an image lead to each other.

    Args:
        images: a relation (key, phash, phash_square).
    """
    near = near_pairs(con, images, images, distance)
    found = con.execute(
        f"SELECT a, b FROM {near} WHERE a < b "
        f"UNION SELECT phash, phash_square FROM {images} WHERE phash <> phash_square"
    ).fetchnumpy()
    hashes_N, same_N = groups(np.stack([np.asarray(found[c], np.uint64) for c in found], axis=1))
    con.register(f"{near}_arrow", pa.table({"hash": hashes_N, "same": same_N}))
    con.execute(f"CREATE TEMP TABLE {near}_same AS FROM {near}_arrow")
    con.unregister(f"{near}_arrow")
    con.execute(f"DROP TABLE {near}")
    one = "coalesce(phash, phash_square)"
    return f"(SELECT key, coalesce(s.same, {one}) AS same FROM {images} LEFT JOIN {near}_same s ON {one} = s.hash)"
