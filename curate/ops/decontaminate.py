"""Drop images that another dataset has too."""

from typing import Annotated, Literal

from curate.datasets.dataset import open_dataset
from curate.errors import RecipeError
from curate.ops import op
from curate.ops._hashing import hashed, rows_of
from curate.ops._near_duplicates import DISTANCE, Distance, comparable, near_pairs, note_of
from curate.recipes.signatures import RecipeDataset
from curate.rows.relation import Rows
from curate.rows.sql import text


@op(version=2)
def decontaminate(
    rows: Rows,
    *,
    against: Annotated[str, RecipeDataset],
    by: Literal["bytes", "phash"] = "phash",
    distance: Distance | None = None,
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Drop the images that a test set has too, so that testing on it stays fair.

    Args:
        against: the folder of the other dataset; an overlay of the test set is enough.
        by: bytes (equal SHA-256; only files of equal size are read), or phash, which also finds copies that were
            resized, compressed again, or cut to their middle square.
        distance: bits in which two perceptual hashes may differ, 8 by default, as for `dedup`.
        keep: drop the images, or flag them in `rejected`.

    Example:
        decontaminate: {against: test-set, by: bytes}

    Source: Gadre et al. 2023 (DataComp), https://arxiv.org/abs/2304.14108, section 3.2.
    """
    if by == "bytes" and distance is not None:
        raise RecipeError(
            "`distance` is for `by: phash`; bytes are equal or not", hint="leave one of them out"
        )
    dataset = open_dataset(against)
    other = rows_of(dataset, rows)
    if by == "bytes":
        mine = hashed(rows, "sha256", where=_sizes(rows, other))
        theirs = hashed(other, "sha256", where=_sizes(other, rows))
        copies = f"(SELECT key FROM {mine} SEMI JOIN {theirs} USING (sha256))"
        reason = f"same bytes as an image of {dataset.name}"
    else:
        mine, untold = comparable(rows, hashed(rows, "phash"))
        theirs, _ = comparable(other, hashed(other, "phash"))
        rows = rows.noted(note_of(untold)) if untold else rows
        near = near_pairs(rows.con, mine, theirs, DISTANCE if distance is None else distance)
        near = f"(SELECT a FROM {near})"
        copies = f"(SELECT key FROM {mine} WHERE phash IN {near} OR phash_square IN {near})"
        reason = f"looks like an image of {dataset.name}"
    marked = rows.sql(
        f"SELECT r.*, f.key IS NOT NULL AS _elsewhere FROM {rows} r LEFT JOIN {copies} f USING (key)"
    )
    left = marked.reject(f"CASE WHEN _elsewhere THEN {text(reason)} END", keep=keep)
    return left.sql(f"SELECT * EXCLUDE (_elsewhere) FROM {left}")


def _sizes(rows: Rows, other: Rows) -> str:
    """Return a condition for the rows whose size the other set knows; all where hashes are columns already."""
    if "sha256" in rows.columns:
        return "true"
    return f"size IS NULL OR size IN (SELECT size FROM {other}) OR EXISTS (FROM {other} WHERE size IS NULL)"
