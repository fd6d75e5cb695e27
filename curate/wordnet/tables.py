"""The packaged tables: WordNet 3.0's nouns, published choices of parents and synsets; and their digest."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path


def table_path() -> Path:
    """Return where the packaged table of nouns is."""
    return Path(__file__).with_name("nouns.parquet")


def data_path(name: str) -> Path:
    """Return where a packaged CSV is."""
    return Path(__file__).with_name(name)


@cache
def digest() -> str:
    """Return the sha256 over all packaged tables: that of the nouns, and the lines of every CSV by its name.

    It is part of every plan's digest: an edge that changes gives the sets that rest on it another name.
    """
    parts = [table_digest()]
    for path in sorted(table_path().parent.glob("*.csv")):
        lines = path.read_text(encoding="utf-8").splitlines()  # a checkout with \r\n has the same digest
        parts += [path.name, hashlib.sha256("\n".join(lines).encode()).hexdigest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def table_digest() -> str:
    """Return the sha256 of the nouns' rows, as the table itself states it.

    Of the rows and not of the file, whose bytes carry the version of the library that wrote it.
    """
    import duckdb

    with duckdb.connect() as con:
        found = con.execute(
            "SELECT decode(value) FROM parquet_kv_metadata(?) WHERE decode(key) = 'digest'",
            [str(table_path())],
        ).fetchone()
    assert found, f"{table_path()} states no digest"
    return str(found[0])
