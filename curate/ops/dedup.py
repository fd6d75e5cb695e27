"""Drop images that are there twice."""

from typing import Literal

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._hashing import hashed
from curate.ops._near_duplicates import DISTANCE, Distance, comparable, look_alikes, note_of
from curate.rows.relation import Rows


@op(version=2)
def dedup(
    rows: Rows,
    *,
    by: Literal["bytes", "phash"] = "bytes",
    distance: Distance | None = None,
    prefer: Literal["first", "largest"] = "first",
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Keep one of the images that are the same, by their bytes or by what they look like.

    Similarity is transitive: if a is like b and b is like c, one of the three stays. Labels are ignored, so an
    image in two classes stays in one. Images of one colour or of plain stripes have perceptual hashes that say
    too little: `by: phash` does not compare them, and the ledger counts them.

    Args:
        by: bytes (equal SHA-256; only files of equal size are read), or phash (a 64-bit perceptual hash).
        distance: bits in which two perceptual hashes may differ, 8 by default; nearly all have 32 of 64 bits set, so
            they differ in an even number, and an odd distance is the even one below it. Images are compared as
            wholes and by their middle squares. 8 finds 99 % of copies that were resized or compressed again, and
            99 % of middle squares; fewer than one in a million pairs of other images is taken for a copy.
            A million images take a minute or two, at 10 or more far longer.
        prefer: which stays: the first by key, or the largest in pixels, then in bytes, then the first.
        keep: drop the others, or flag them in `rejected`.

    Example:
        dedup: {by: bytes}

    Source: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions.
    """
    if by == "bytes" and distance is not None:
        raise RecipeError(
            "`distance` is for `by: phash`; bytes are equal or not", hint="leave one of them out"
        )
    if by == "bytes":
        same = _same_bytes(rows)
    else:
        images, untold = comparable(rows, hashed(rows, "phash"))
        same = look_alikes(rows.con, images, DISTANCE if distance is None else distance)
        rows = rows.noted(note_of(untold)) if untold else rows
    first = "width::BIGINT * height DESC NULLS LAST, size DESC NULLS LAST, " if prefer == "largest" else ""
    numbered = rows.sql(
        f"SELECT r.*, s.same IS NOT NULL AND row_number() OVER (PARTITION BY s.same ORDER BY {first}r.key) > 1 "
        f"AS _again FROM {rows} r LEFT JOIN {same} s USING (key)"
    )
    reason = "same bytes as another image" if by == "bytes" else "looks like another image"
    left = numbered.reject(f"CASE WHEN _again THEN '{reason}' END", keep=keep)
    return left.sql(f"SELECT * EXCLUDE (_again) FROM {left}")


def _same_bytes(rows: Rows) -> str:
    """Return a relation (key, same) of rows whose bytes may stand elsewhere too."""
    alike = (
        f"size IS NULL OR size IN (SELECT size FROM {rows} GROUP BY size HAVING count(*) > 1)"
        if "sha256" not in rows.columns
        else "true"
    )
    table = hashed(rows, "sha256", where=alike)
    return f"(SELECT key, sha256 AS same FROM {table})"
