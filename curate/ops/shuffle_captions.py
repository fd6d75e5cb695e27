"""Make captions wrong."""

from curate.captions.texts import LIST, check_list, spoilt_to
from curate.errors import DataError
from curate.ops import op
from curate.recipes.signatures import Fraction, Seed
from curate.rows.chance import chance_sql
from curate.rows.relation import Rows


@op(version=2)
def shuffle_captions(rows: Rows, *, rate: Fraction, seed: Seed) -> Rows:
    """Give exactly `rate` of the captioned rows the texts of another of them: its caption, and its list `captions`.

    The set of texts stays the same; the texts of a row move to the next row in a random order. `clean_caption` and
    `clean_captions` keep the true ones, unless an earlier step has put texts there. Draws nest: with one seed, the
    rows hit at one rate are hit at every higher one, all but one with the same wrong caption. If two rows share a
    caption, one may get the text that it had.

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
    check_list(rows)
    texts = [c for c in ("caption", LIST) if c in rows.columns]
    order = f"{chance_sql(seed, 'shuffle_captions')}, key"
    ranked = (
        f"SELECT key, {', '.join(texts)}, row_number() OVER (ORDER BY {order}) AS _rank "
        f"FROM {rows} WHERE caption IS NOT NULL QUALIFY _rank <= {hit}"
    )
    last = f"_rank = {hit}"  # the last gets those of the first
    of_next = [f"if({last}, first_value({c}) OVER line, lead({c}) OVER line) AS _{c}" for c in texts]
    moved = f"SELECT key AS _key, {', '.join(of_next)} FROM ({ranked}) WINDOW line AS (ORDER BY _rank)"
    joined = rows.sql(f"SELECT r.*, m.* FROM {rows} r LEFT JOIN ({moved}) m ON key = _key")
    spoilt_rows = spoilt_to(joined, {c: f"if(_key IS NOT NULL, _{c}, {c})" for c in texts})
    return spoilt_rows.sql(f"SELECT * EXCLUDE (_key, {', '.join(f'_{c}' for c in texts)}) FROM {spoilt_rows}")
