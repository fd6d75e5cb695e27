"""What the samples of a dataset consist of: which formats need to know before they name a field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from curate.manifests import plain, text


@dataclass(frozen=True)
class Contents:
    """What the samples of a dataset consist of.

    Args:
        images: the extensions of the images, such as `("jpg", "png")`.
        rows: how many samples.
        labels: how many of them have a label (a member `.cls`).
        captions: how many of them have a caption (a member `.txt`).
    """

    images: tuple[str, ...]
    rows: int
    labels: int
    captions: int

    @property
    def members(self) -> tuple[str, ...]:
        """The extensions that samples have in a shard, in the order of the tar."""
        told = [name for name, count in (("cls", self.labels), ("txt", self.captions)) if count]
        return tuple(sorted([*self.images, *told, "json"]))


def contents(manifest: str | Path) -> Contents:
    """Count what the samples of a manifest consist of."""
    with duckdb.connect() as con:
        [(images, rows, labels, captions)] = con.execute(
            "SELECT list_sort(list(DISTINCT ext)), count(*), count(label), count(caption) FROM "
            f"read_parquet({text(plain(manifest))})"
        ).fetchall()
    return Contents(tuple(images or ()), rows, labels, captions)
