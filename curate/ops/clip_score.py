"""Keep the pairs whose image and caption agree best."""

from typing import Literal

from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.ops.filter import first_reason, similarity_reasons, unknown_score
from curate.recipes.signatures import Fraction
from curate.rows.first_rows import mark_first_rows
from curate.rows.relation import Rows
from curate.rows.sql import quoted


@op(version=1, streams=lambda arguments: arguments["fraction"] is None)
def clip_score(
    rows: Rows,
    *,
    fraction: Fraction | None = None,
    threshold: float | None = None,
    column: str = "similarity",
    keep: Literal["drop", "flag"] = "drop",
) -> Rows:
    """Keep the rows with the highest CLIP score: exactly a share of them, or all at or above a threshold.

    Smaller shares are inside larger ones. Rows without a score are never kept.

    Args:
        fraction: share of all rows to keep, in [0, 1]; rounded to the nearest row, halves up, ties by key. DataComp
            takes 0.3 of ViT-L/14's score.
        threshold: least score to keep instead; 0.28 is that of LAION-2B, of ViT-B/32's score.
        column: the score; `join` brings one from a table.
        keep: drop the other rows, or flag them: keep them all and give the reason in the column `rejected`.

    Example:
        clip_score: {fraction: 0.5, column: similarity}

    Source: Gadre et al. 2023 (DataComp), https://arxiv.org/abs/2304.14108, section 4.1; the baseline `clip_score` of
    https://github.com/mlfoundations/datacomp keeps one row more, and ties.
    """
    if (fraction is None) == (threshold is None):
        raise RecipeError("clip_score takes either `fraction` or `threshold`")
    if threshold is not None:
        return rows.reject(first_reason(similarity_reasons(rows, column, threshold)), keep=keep)
    assert fraction is not None
    unknown = unknown_score(rows, column)
    total, scored = rows.con.execute(
        f"SELECT count(*), count(*) FILTER (NOT {unknown}) FROM {rows}"
    ).fetchall()[0]
    wanted = int(total * fraction + 0.5)
    if wanted > scored:
        raise DataError(
            f"{wanted:,} of {total:,} rows wanted, but only {scored:,} have a {column}",
            hint="ask for a smaller fraction, or drop the rows without one first",
        )
    order = f"CASE WHEN NOT {unknown} THEN -{quoted(column)}::DOUBLE END"
    marked = mark_first_rows(rows, "_is_top", order=order, wanted={0: wanted})
    reasons = [(unknown, f"no {column}"), ("NOT _is_top", f"{column} not in the top {fraction:g}")]
    judged = marked.reject(first_reason(reasons), keep=keep)
    return judged.sql(f"SELECT * EXCLUDE (_is_top) FROM {judged}")
