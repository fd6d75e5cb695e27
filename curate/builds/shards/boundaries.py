"""Where one shard ends and the next begins: a pure function of the manifest."""

from __future__ import annotations

import numpy as np


def cuts(sizes: np.ndarray, *, samples_per_shard: int, bytes_per_shard: int | None = None) -> list[int]:
    """Return the first row of each shard, and one past the last row of all.

    A shard is full when it has so many samples, or when the next image would bring it over so many bytes of
    images; an image larger than that has a shard of its own.

    Args:
        sizes: bytes of each image, in order.
    """
    count = len(sizes)
    if bytes_per_shard is None:
        return [*range(0, count, samples_per_shard), count] if count else [0]
    ends = np.cumsum(sizes)
    found = [0]
    while (first := found[-1]) < count:
        before = int(ends[first - 1]) if first else 0
        full = int(np.searchsorted(ends, before + bytes_per_shard, side="right"))
        found.append(min(first + samples_per_shard, max(full, first + 1), count))
    return found
