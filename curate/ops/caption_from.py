"""Make captions of columns."""

from typing import Literal

from curate.captions.texts import brought
from curate.errors import RecipeError, reject_unknown
from curate.ops import op
from curate.rows.manifest import CORE
from curate.rows.relation import Rows
from curate.rows.sql import quoted, text

BLANKS = r"[\s\p{Z}]+"  # \s alone knows no other than ASCII's


@op(version=2)
def caption_from(
    rows: Rows,
    *,
    columns: list[str],
    separator: str = " ",
    empty: Literal["keep", "drop"] = "keep",
    drop: bool = False,
) -> Rows:
    """Join columns into the caption.

    A list, such as tags, is joined by spaces. NULL and blank parts are skipped, and any run of white space becomes
    one space. A row with nothing left has no caption. The list `captions` is dropped: a row has this one text.
    Spoilt texts (`clean_caption`) are not replaced: put this step before the one that spoils, or `clean` first.

    Args:
        columns: in the order of the text; ImageNet-Captions joins title, tags and description.
        separator: what stands between two columns.
        empty: what to do with a row that has nothing left: keep it without a caption, or drop it.
        drop: whether to drop the columns afterwards; core columns stay.

    Example:
        caption_from: {columns: [caption, source, language], separator: ", "}

    Source: Fang et al. 2022, https://arxiv.org/abs/2205.01397, ImageNet-Captions.
    """
    if not columns:
        raise RecipeError("columns: the list is empty", hint="`columns: [title, tags, description]`")
    for column in columns:
        message = f"the rows have no column {column!r}"
        reject_unknown(column, rows.columns, message, hint="`join` brings columns from a table")
    parts = ", ".join(_words(column, rows.columns[column]) for column in columns)
    captioned = rows.with_columns(caption=f"nullif(concat_ws({text(separator)}, {parts}), '')")
    gone = [quoted(c) for c in columns if c not in CORE]
    if drop and gone:
        captioned = captioned.sql(f"SELECT * EXCLUDE ({', '.join(gone)}) FROM {captioned}")
    captioned = brought(rows, captioned, ["caption"])
    if empty == "drop":
        return captioned.reject("CASE WHEN caption IS NULL THEN 'no text' END", keep="drop")
    return captioned


def _words(column: str, kind: str) -> str:
    """Return a column as text without blanks around it; NULL for nothing."""
    value = f"{quoted(column)}::VARCHAR"
    if kind.endswith("[]"):
        value = f"array_to_string(list_filter({quoted(column)}::VARCHAR[], lambda x: x IS NOT NULL), ' ')"
    return f"nullif(trim(regexp_replace({value}, '{BLANKS}', ' ', 'g')), '')"
