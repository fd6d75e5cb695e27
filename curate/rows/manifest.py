"""The manifest: the rows of a dataset in their final order, their core columns, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from curate.rows.sql import quoted

# Always present, in this order. `file` is relative to the dataset's root; `size` in bytes; `width` and
# `height` in pixels; `label` is dense from 0, NULL for none.
CORE = {
    "key": "VARCHAR",
    "file": "VARCHAR",
    "offset": "BIGINT",
    "size": "BIGINT",
    "ext": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "label": "INTEGER",
    "caption": "VARCHAR",
    "split": "VARCHAR",
}
KEY_LIMIT = 200  # characters
ROWS_PER_CHUNK = 65_536  # rows under one node of the digest's tree


@dataclass(frozen=True)
class Class:
    """A class of a dataset.

    Args:
        name: readable, and unique within the dataset.
        wnid: its WordNet synset, if it has one.
        fine: ids (wnid, else name) of the source's classes that were merged into it; empty if none were.
    """

    name: str
    wnid: str | None = None
    fine: tuple[str, ...] = field(default=())

    @property
    def id(self) -> str:
        """The wnid if there is one, else the name; chance and maps use it."""
        return self.wnid or self.name


def ordered(columns: Iterable[str]) -> list[str]:
    """Return the columns in the manifest's order: the core first, then the others by name."""
    names = set(columns)
    return [c for c in CORE if c in names] + sorted(names - set(CORE))


def rows_digest(con: Any, table: str, position: str, columns: Sequence[str]) -> str:
    """Return the digest of a table's rows in order: "sha256:…".

    It hashes values and not the bytes of Parquet, which hold the library's version. A row is the JSON of its columns
    in order; chunks of 65,536 rows are hashed separately, so that memory stays flat.

    Args:
        con: a DuckDB connection.
        table: a relation.
        position: a SQL expression that numbers the rows 0, 1, 2, … in order.
        columns: in the manifest's order.
    """
    body = ", ".join(f"{quoted(c)} := {quoted(c)}" for c in columns)
    chunks = con.execute(
        f"SELECT sha256(string_agg(hash, '' ORDER BY position)) FROM ("
        f"SELECT {position} AS position, md5(to_json(struct_pack({body}))::VARCHAR) AS hash FROM {table}) "
        f"GROUP BY position // {ROWS_PER_CHUNK} ORDER BY position // {ROWS_PER_CHUNK}"
    ).fetchall()
    return digest([list(columns), [chunk for (chunk,) in chunks]])


def content_digest(rows: str, classes: Iterable[Class]) -> str:
    """Return the digest of a dataset, from the digest of its rows and its classes in label order."""
    return digest([rows, [[c.name, c.wnid, list(c.fine)] for c in classes]])


def digest(value: Any) -> str:
    """Return "sha256:…" of a JSON value in its canonical form (sorted keys, no spaces)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
