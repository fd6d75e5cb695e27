"""Replace a share of the captions by ones from class names."""

from typing import Literal

from curate.captions.prompts import Names, add_prompts
from curate.captions.texts import replaced
from curate.errors import DataError
from curate.ops import op
from curate.recipes.signatures import Fraction, Seed
from curate.rows.chance import chance_sql
from curate.rows.first_rows import mark_first_rows
from curate.rows.relation import Rows


@op(version=2)
def mix_captions(
    rows: Rows,
    *,
    share: Fraction,
    templates: list[str] | str,
    names: Names = "lemma",
    missing: Literal["error", "template"] = "error",
    seed: Seed,
) -> Rows:
    """Give exactly a share of the rows the caption that `caption` would give them; the others keep their own.

    The column `templated` marks these rows. Draws nest: with one seed, the rows templated at one share are templated,
    in the same words, at every higher share. `template` has the number of the template, or NULL. A templated row has
    this one text: its list `captions` is NULL, and its text before any noise is also this one.

    Args:
        share: of all rows, in [0, 1]; the count is rounded to the nearest row, halves up.
        templates: as in `caption`.
        names: as in `caption`.
        missing: what to do with rows that have no caption of their own: refuse, or template them first, as part
            of the share.

    Example:
        mix_captions: {share: 0.5, templates: "a photo of a {}."}

    Source: after Entezari et al. 2023, https://arxiv.org/abs/2302.13602: templated against original captions.
    """
    if missing == "error":
        rows.refuse(
            "caption IS NULL",
            "have no caption of their own",
            hint="`caption_from` or `join` brings captions; `missing: template` templates these first",
        )
    total, without = rows.con.execute(f"SELECT count(*), count(*) - count(caption) FROM {rows}").fetchall()[0]
    hit = int(total * share + 0.5)
    if without > hit:
        raise DataError(
            f"{without:,} rows have no caption of their own, and the share is {hit:,} of {total:,} rows",
            hint=f"a `share` of {without / total:.3g} or more, or drop them first: `where: caption IS NOT NULL`",
        )
    made = add_prompts(rows, templates, names, seed)
    order = chance_sql(seed, "mix_captions")
    if without:  # these come first
        order = f"((caption IS NOT NULL)::UHUGEINT << 64) + {order}"
    ranked = mark_first_rows(made, "_hit", order=order, wanted={0: hit})
    captioned = replaced(ranked, "_made", where="_hit")
    captioned = captioned.with_columns(template="if(_hit, template, NULL)", templated="_hit")
    return captioned.sql(f"SELECT * EXCLUDE (_made, _hit) FROM {captioned}")
