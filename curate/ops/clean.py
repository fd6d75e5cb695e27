"""Undo noise."""

from curate.errors import RecipeError
from curate.ops import op
from curate.rows import Rows

KEPT = {"clean_label": "label", "clean_caption": "caption"}


@op(version=1)
def clean(rows: Rows) -> Rows:
    """Put true labels and captions back: undo `noise` and what shuffled or changed the captions.

    `clean_label` and `clean_caption` go. A row whose true class has left the set since has no label then.

    Example:
        - noise: {rate: 0.5}
        - clean

    """
    undone = {true: column for true, column in KEPT.items() if true in rows.columns}
    if not undone:
        raise RecipeError(
            "these rows have no clean_label and no clean_caption",
            hint="`noise` and the steps that change captions keep what was there; nothing has been changed yet",
        )
    back = ", ".join(f"{true} AS {column}" for true, column in undone.items())
    return rows.sql(f"SELECT * EXCLUDE ({', '.join(undone)}) REPLACE ({back}) FROM {rows}")
