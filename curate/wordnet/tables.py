"""The packaged table of WordNet 3.0's nouns: where it is, and its digest."""

from __future__ import annotations

from functools import cache
from pathlib import Path


def table_path() -> Path:
    """Return where the packaged table is."""
    return Path(__file__).with_name("nouns.parquet")


@cache
def digest() -> str:
    """Return the sha256 of the table's rows, as the table itself states it.

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
