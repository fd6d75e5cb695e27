"""Drop images that are there twice."""

from typing import Annotated, Literal

from pydantic import Field

from curate.errors import RecipeError
from curate.hashes import groups, hashed, near_query
from curate.ops import op
from curate.rows import Rows

Distance = Annotated[int, Field(ge=0, le=16)]


@op(version=1)
def dedup(
    rows: Rows,
    *,
    by: Literal["bytes", "phash"] = "bytes",
    distance: Distance | None = None,
    prefer: Literal["first", "largest"] = "first",
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Keep one of the images that are the same, by their bytes or by what they look like.

    Likeness is handed on: of a, b and c, where a is like b and b like c, one stays. Labels play no part, so an
    image under two classes stays under one.

    Args:
        by: bytes (equal SHA-256; only files of equal size are read), or phash (a 64-bit perceptual hash).
        distance: bits in which two perceptual hashes may differ, 4 by default. Finding the pairs takes time that
            grows steeply with it: over a million images stay below 6.
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
    same = _same_bytes(rows) if by == "bytes" else _look_alike(rows, 4 if distance is None else distance)
    first = "width::BIGINT * height DESC NULLS LAST, size DESC NULLS LAST, " if prefer == "largest" else ""
    numbered = rows.sql(
        f"SELECT r.*, s.same IS NOT NULL AND row_number() OVER (PARTITION BY s.same ORDER BY {first}r.key) > 1 "
        f"AS again FROM {rows} r LEFT JOIN {same} s USING (key)"
    )
    reason = "same bytes as another image" if by == "bytes" else "looks like another image"
    left = numbered.reject(f"CASE WHEN again THEN '{reason}' END", keep=keep)
    return left.sql(f"SELECT * EXCLUDE (again) FROM {left}")


def _same_bytes(rows: Rows) -> str:
    """Return a relation (key, same) of rows whose bytes may stand elsewhere too."""
    alike = (
        f"size IS NULL OR size IN (SELECT size FROM {rows} GROUP BY size HAVING count(*) > 1)"
        if "sha256" not in rows.columns
        else "true"
    )
    table = hashed(rows, "sha256", where=alike)
    return f"(SELECT key, hash AS same FROM {table})"


def _look_alike(rows: Rows, distance: int) -> str:
    """Return a relation (key, same) of all rows, `same` being equal for images that look alike."""
    table = hashed(rows, "phash")
    distinct = f"(SELECT DISTINCT hash FROM {table} WHERE hash IS NOT NULL)"
    if distance == 0 or rows.planning:
        return f"(SELECT key, hash AS same FROM {table})"
    pairs = rows.con.execute(
        f"SELECT a, b FROM ({near_query(distinct, distinct, distance)}) WHERE a < b"
    ).fetchall()
    grouped = groups(pairs)
    group = rows.lookup({"h": ("UBIGINT", list(grouped)), "g": ("UBIGINT", list(grouped.values()))})
    return f"(SELECT key, coalesce(g, hash) AS same FROM {table} LEFT JOIN {group} ON hash = h)"
