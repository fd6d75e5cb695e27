"""What the samples of a dataset consist of: which formats need to know before they name a field."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from curate.errors import DataError
from curate.rows.sql import parquet


@dataclass(frozen=True)
class Contents:
    """What the samples of a dataset consist of.

    Args:
        images: the extensions of the images, such as `("jpg", "png")`.
        rows: how many samples.
        labels: how many of them have a label (a member `.cls`).
        captions: how many of them have a caption (a member `.txt`).
        splits: split → rows; those without one belong to `train`.
    """

    images: tuple[str, ...]
    rows: int
    labels: int
    captions: int
    splits: dict[str, int]

    @property
    def members(self) -> tuple[str, ...]:
        """The extensions that samples have in a shard, in the order of the tar."""
        told = [name for name, count in (("cls", self.labels), ("txt", self.captions)) if count]
        return tuple(sorted([*self.images, *told, "json"]))


def contents(manifest: str | Path) -> Contents:
    """Count what the samples of a manifest consist of.

    Raises:
        DataError: it cannot be read.
    """
    table = parquet(manifest)
    try:
        with duckdb.connect() as con:
            [(images, rows, labels, captions)] = con.execute(
                f"SELECT list_sort(list(DISTINCT ext)), count(*), count(label), count(caption) FROM {table}"
            ).fetchall()
            splits = con.execute(
                f"SELECT coalesce(split, 'train') AS name, count(*) FROM {table} GROUP BY name ORDER BY name"
            ).fetchall()
    except duckdb.Error as error:
        raise DataError(
            f"{manifest}: cannot be read ({error})", hint="`curate verify` says what is wrong"
        ) from error
    return Contents(tuple(images or ()), rows, labels, captions, dict(splits))
