"""Add columns with hashes of the images."""

from typing import Literal

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._hashing import COLUMNS, hashed
from curate.rows.relation import Rows


@op(version=2)
def hashes(rows: Rows, *, kinds: list[Literal["sha256", "phash"]]) -> Rows:
    """Read every image once and keep its hashes as columns.

    `dedup` and `decontaminate` use these columns if they exist, and otherwise read the bytes themselves: a dataset
    that has them is hashed once for everything built from it.

    Args:
        kinds: `sha256` of the bytes, in hexadecimal; `phash`, the 64-bit DCT hash of the pixels, and with it
            `phash_square`, that of the middle square (both NULL for an image that does not decode). An existing
            column of that name stays.

    Example:
        hashes: {kinds: [phash]}

    Source: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions.
    """
    if not kinds:
        raise RecipeError("kinds: the list is empty", hint="`kinds: [sha256, phash]`")
    for kind in dict.fromkeys(kinds):
        missing = [column for column in COLUMNS[kind] if column not in rows.columns]
        if missing:
            table = hashed(rows, kind)
            columns = ", ".join(f"h.{column}" for column in missing)
            rows = rows.sql(f"SELECT r.*, {columns} FROM {rows} r JOIN {table} h USING (key)")
    return rows
