"""Make captions wrong."""

from curate.chance import chance_sql
from curate.errors import DataError
from curate.ops import op
from curate.rows import Rows
from curate.signatures import Fraction, Seed
from curate.wordings import kept_clean


@op(version=1)
def shuffle_captions(rows: Rows, *, rate: Fraction, seed: Seed) -> Rows:
    """Give exactly `rate` of the captioned rows the caption of another of them.

    The captions as a whole stay the same; each moves on by one row along an order of chance. The true caption
    stays in `clean_caption`, unless an earlier step has put one there. Draws nest: with one seed, the rows hit at
    one rate are hit at every higher one, all but one with the same wrong caption. Where two rows share a caption,
    one may get the text it had.

    Args:
        rate: share of the rows that have a caption, in [0, 1]; the count is rounded to the nearest row, halves up.

    Example:
        shuffle_captions: {rate: 0.5}

    Source: after Huang et al. 2021, Learning with Noisy Correspondence for Cross-modal Matching, NeurIPS.
    """
    total, captioned = rows.con.execute(f"SELECT count(*), count(caption) FROM {rows}").fetchone()
    if rate > 0 and total and not captioned:
        raise DataError(
            f"none of the {total:,} rows has a caption",
            hint="`caption_from` or `join` brings captions; `caption` makes them from class names",
        )
    hit = int(captioned * rate + 0.5)
    if hit == 1:
        raise DataError(
            f"a rate of {rate:g} hits 1 of {captioned:,} captioned rows, which has no other to swap with",
            hint="a higher `rate`, or 0",
        )
    ranked = (
        f"SELECT key, caption, row_number() OVER (ORDER BY {chance_sql(seed, 'shuffle_captions')}, key) AS rank "
        f"FROM {rows} WHERE caption IS NOT NULL QUALIFY rank <= {hit}"
    )
    moved = (
        f"SELECT key AS _key, coalesce(lead(caption) OVER line, first_value(caption) OVER line) AS _moved "
        f"FROM ({ranked}) WINDOW line AS (ORDER BY rank)"
    )
    joined = rows.sql(f"SELECT r.*, _key, _moved FROM {rows} r LEFT JOIN ({moved}) ON key = _key")
    told = kept_clean(joined, "if(_key IS NOT NULL, _moved, caption)")
    return told.sql(f"SELECT * EXCLUDE (_key, _moved) FROM {told}")
