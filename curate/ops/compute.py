"""Add columns that follow from others."""

from curate.captions.texts import TEXTS, brought
from curate.errors import RecipeError
from curate.ops import op
from curate.ops.join import FIXED
from curate.rows.conditions import checked
from curate.rows.relation import TEMPORARY, Rows


@op(version=2, streams=lambda given: not TEXTS & set(map(str.lower, given["columns"])))
def compute(rows: Rows, *, columns: dict[str, str]) -> Rows:
    """Add columns, or replace some, by SQL expressions over the row.

    An expression sees one row: its columns, functions and literals, but no other rows, tables or files. The
    columns of the bytes, the key and the label cannot be set. A new `caption` replaces all texts of a row. A new list
    `captions` does too: if the row's caption is not in it, its first text becomes the caption.

    Args:
        columns: column → DuckDB SQL, such as `{pixels: width * height}`; all see the row as it was before.

    Example:
        compute: {columns: {aspect: "round(width / height, 2)"}}
    """
    if not columns:
        raise RecipeError("columns: the mapping is empty", hint="`columns: {pixels: width * height}`")
    called = {c.lower(): c for c in rows.columns}  # SQL's names have no case
    columns = {called.get(c.lower(), c): expression for c, expression in columns.items()}
    if taken := FIXED & set(columns):
        raise RecipeError(
            f"column {min(taken)!r} cannot be set", hint="`label_from` turns a column into labels"
        )
    if own := [c for c in columns if c.startswith(TEMPORARY) and c not in rows.columns]:
        raise RecipeError(
            f"column {own[0]!r}: names that begin with {TEMPORARY} are the steps' own",
            hint="give it another name",
        )
    made = rows.with_columns({c: checked(text, rows.columns, constant=True) for c, text in columns.items()})
    return brought(rows, made, columns)
