"""Take labels from a column."""

from curate.errors import RecipeError
from curate.manifests import quoted
from curate.ops import op
from curate.rows import NotKnownYet, Rows
from curate.sources._indexes import class_list


@op(version=1)
def label_from(rows: Rows, *, column: str, keep_clean: bool = False) -> Rows:
    """Take each row's label from a column of class names or wnids, such as the labels of human annotators.

    Where the set has classes, each value must be the name or the wnid of one of them. Where it has none, the
    column's values become the classes, in sorted order. Where no class is called by a number, numbers from 0 are
    labels. NULL is no label.

    Args:
        column: the column.
        keep_clean: whether the labels so far are the true ones, and stay in `clean_label`: real noise.

    Example:
        - where: label < 2
        - join: {file: scores.csv, columns: [human]}
        - label_from: {column: human, keep_clean: true}
    """
    rows.require(column, hint="`join` brings columns from a table")
    if keep_clean and "clean_label" in rows.columns:
        raise RecipeError(
            "these rows have noise already (column clean_label)", hint="`clean` undoes it first"
        )
    name = quoted(column)
    classes = rows.classes
    if not classes:
        if rows.planning:
            raise NotKnownYet
        found = rows.con.execute(
            f"SELECT DISTINCT {name}::VARCHAR FROM {rows} WHERE {name} IS NOT NULL"
        ).fetchall()
        classes = class_list(sorted(value for (value,) in found))
    index = {c.name: i for i, c in enumerate(classes)} | {c.id: i for i, c in enumerate(classes)}
    if not any(called.isdecimal() for called in index):
        index |= {str(i): i for i in range(len(classes))}
    table = rows.lookup({"called": ("VARCHAR", list(index)), "given": ("INTEGER", list(index.values()))})
    joined = rows.sql(
        f"SELECT r.*, given FROM {rows} r LEFT JOIN {table} ON r.{name}::VARCHAR = called", classes=classes
    )
    joined.refuse(
        f"given IS NULL AND {name} IS NOT NULL", f"have a {column!r} that is no class", show=f"{name}::VARCHAR",
        hint=f"the classes are {', '.join(c.name for c in classes[:3])}, …",
    )  # fmt: skip
    clean = {"clean_label": "label"} if keep_clean else {}
    labelled = joined.with_columns({"label": "given"} | clean)
    return labelled.sql(f"SELECT * EXCLUDE (given) FROM {labelled}")
