"""Keep rows that another dataset has too."""

from typing import Annotated, Literal

from curate.datasets.dataset import open_dataset
from curate.ops import op
from curate.ops._hashing import hashed, rows_of
from curate.recipes.signatures import RecipeDataset
from curate.rows.relation import Rows
from curate.rows.sql import text


@op(version=1)
def shared(
    rows: Rows,
    *,
    with_: Annotated[str, RecipeDataset],
    by: Literal["bytes", "key"] = "bytes",
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Keep the rows that another dataset has too: of two downloads of a table, what both have.

    With `bytes`, both datasets must have the row with the same key and the same bytes (SHA-256); an image that is gone
    from its URL, or has changed there, is not shared.

    Args:
        with: the folder of the other dataset.
        by: bytes, or key alone, whatever happened to the image.
        keep: drop the other rows, or flag them in `rejected`.

    Example:
        shared: {with: test-set, by: key}
    """
    dataset = open_dataset(with_)
    other = rows_of(dataset, rows)
    theirs_by_key = f"(SELECT key AS other_key, NULL AS other_hash FROM {other})"
    mine = f"(SELECT key, NULL AS hash FROM {rows})"
    if by == "bytes":
        mine = f"(SELECT key, sha256 AS hash FROM {hashed(rows, 'sha256', where=_common(rows, other))})"
        theirs = hashed(other, "sha256", where=_common(other, rows))
        theirs_by_key = f"(SELECT key AS other_key, sha256 AS other_hash FROM {theirs})"
    common = (
        f"(SELECT m.key AS _shared_key, m.hash IS NOT DISTINCT FROM t.other_hash AS _same FROM {mine} m "
        f"JOIN {theirs_by_key} t ON m.key = t.other_key)"
    )
    marked = rows.sql(
        f"SELECT r.*, s._shared_key, s._same FROM {rows} r LEFT JOIN {common} s ON r.key = s._shared_key"
    )
    reason = (
        f"CASE WHEN _shared_key IS NULL THEN {text(f'not in {dataset.name}')} "
        f"WHEN NOT _same THEN {text(f'other bytes in {dataset.name}')} END"
    )
    left = marked.reject(reason, keep=keep)
    return left.sql(f"SELECT * EXCLUDE (_shared_key, _same) FROM {left}")


def _common(rows: Rows, other: Rows) -> str:
    """Return a condition for the rows whose key the other has: no other bytes are read."""
    return f"key IN (SELECT key FROM {other})"
