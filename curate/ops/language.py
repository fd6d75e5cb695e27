"""Detect the language of captions."""

from typing import Annotated, Literal

from curate.captions.languages import detector as open_detector
from curate.captions.languages import register
from curate.ops import op
from curate.recipes.signatures import RecipeFile
from curate.rows.relation import Rows


@op(version=1)
def language(
    rows: Rows,
    *,
    detector: Literal["py3langid", "fasttext", "gcld3"] = "py3langid",
    model: Annotated[str, RecipeFile] | None = None,
) -> Rows:
    """Add the column `language`: the ISO 639-1 code of each caption's language, as a detector sees it.

    Detectors differ, most of all on short captions, and so may their releases. A row without a caption, or with
    a blank one, has no language. Equal captions are detected once. The detector does not see the other texts of a list
    `captions`.

    Args:
        detector: py3langid (97 languages, its model comes with it), fasttext (176, needs `model`) or gcld3.
        model: fasttext's file; DataComp takes lid.176.bin.

    Example:
        language: {detector: py3langid}

    Source: Gadre et al. 2023 (DataComp), https://arxiv.org/abs/2304.14108 (fasttext, and gcld3 for its LAION-2B
    filter); https://pypi.org/project/py3langid (py3langid).
    """
    opened = open_detector(detector, model)
    if not rows.planning:
        opened()  # a damaged model says so here, and not from inside DuckDB
    function = register(rows.con, opened)
    languages = rows.sql(
        f"SELECT caption AS _language_caption, nullif({function}(caption), '') AS _language_found "
        f"FROM (SELECT DISTINCT caption FROM {rows} WHERE caption IS NOT NULL)"
    )
    joined = rows.sql(
        f"SELECT r.*, _language_found FROM {rows} r LEFT JOIN {languages} ON caption = _language_caption"
    ).with_columns(language="_language_found")
    return joined.sql(f"SELECT * EXCLUDE (_language_found) FROM {joined}")
