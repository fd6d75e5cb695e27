"""What the samples of a dataset consist of, and how Hugging Face `datasets` names the types of their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets.dataset import ClassRecord
from curate.errors import DataError
from curate.rows.sql import parquet

VALUES = {
    "VARCHAR": "string",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOLEAN": "bool",
}


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
        texts = [name for name, count in (("cls", self.labels), ("txt", self.captions)) if count]
        return tuple(sorted([*self.images, *texts, "json"]))


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


def value(kind: str) -> dict[str, Any] | None:
    """Return the feature of a DuckDB type in the words of a card; None where there is none."""
    if kind.endswith("[]"):
        inner = VALUES.get(kind[:-2])
        return {"list": inner} if inner else None
    return {"dtype": VALUES[kind]} if kind in VALUES else None


def card_fields(
    members: Sequence[str], columns: Mapping[str, str], classes: Sequence[ClassRecord]
) -> list[dict[str, Any]]:
    """Return the fields of a sample of a shard, for the YAML of a card.

    Args:
        members: the extensions of its members.
        columns: those of the manifest, with their DuckDB types; they are what `.json` holds.
    """
    names = {str(i): one.name for i, one in enumerate(classes)}
    row = [{"name": c, **feature} for c, kind in columns.items() if (feature := value(kind))]
    known: dict[str, dict[str, Any]] = {
        "cls": {"dtype": {"class_label": {"names": names}}} if names else {"dtype": "int64"},
        "txt": {"dtype": "string"},
        "json": {"struct": row},
    }
    fields = [{"name": member, **known.get(member, {"dtype": "image"})} for member in members]
    return fields + [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
