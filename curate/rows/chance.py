"""Chance of a row: a hash of its key, not the state of a generator.

`chance(key, seed, salt)` is a number in [0, 2**64), the first eight bytes of the MD5 of
`salt:seed:key`, little-endian. DuckDB and Python compute the same bits, so a draw does not
depend on the order of rows, the number of threads or the version of a library. Every decision
has a salt of its own ("noise/hit", "noise/target"), so that decisions are independent. For an
exact count, rows are ranked by chance, with ties broken by key.
"""

from __future__ import annotations

import hashlib

SPAN = 2**64  # chance is uniform over 0..SPAN-1


def chance(key: str, seed: int, salt: str) -> int:
    """Return the chance of `key`, uniform in 0..2**64-1."""
    return int.from_bytes(hashlib.md5(f"{salt}:{seed}:{key}".encode()).digest()[:8], "little")


def chance_sql(seed: int, salt: str, key: str = "key") -> str:
    """Return a DuckDB expression (UBIGINT) equal to `chance` of the column `key`."""
    prefix = f"{salt}:{seed}:".replace("'", "''")
    # md5_number_upper is the same number, and takes five times as long (DuckDB 1.3 and 2.0).
    return f"(md5_number('{prefix}' || {key}) & {SPAN - 1})::UBIGINT"


def order_sql(seed: int) -> str:
    """Return a DuckDB expression to order rows by: the whole MD5 of `order:seed:key`, little-endian.

    It has twice the bits of `chance`, so that no second column is needed to break ties, which would double the time.
    """
    return f"md5_number('order:{seed}:' || key)"
