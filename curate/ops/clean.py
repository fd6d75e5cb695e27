"""Undo noise."""

from curate.captions.texts import CLEAN, restored
from curate.errors import RecipeError
from curate.ops import op
from curate.rows.relation import Rows


@op(version=2)
def clean(rows: Rows) -> Rows:
    """Put true labels and captions back: undo `noise` and what shuffled or changed the captions.

    `clean_label`, `clean_caption` and `clean_captions` are dropped. A row whose true class is gone since `noise` has no
    label.

    Example:
        - noise: {rate: 0.5}
        - clean

    """
    if not {"clean_label", *CLEAN.values()} & set(rows.columns):
        raise RecipeError(
            "these rows have no clean_label and no clean_caption",
            hint="`noise` and the steps that change captions keep what was there; nothing has been changed yet",
        )
    rows = restored(rows)
    if "clean_label" not in rows.columns:
        return rows
    return rows.sql(f"SELECT * EXCLUDE (clean_label) REPLACE (clean_label AS label) FROM {rows}")
