"""Take labels from a column."""

import re

from curate.errors import RecipeError
from curate.ops import op
from curate.rows.relation import NotKnownYet, Rows
from curate.rows.sql import quoted
from curate.sources._index_cache import class_list, sorted_ids

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL\(.*\)").fullmatch
MAX_WHOLE = 10**15  # beyond, not every whole number is a DOUBLE


@op(version=2)
def label_from(rows: Rows, *, column: str, keep_clean: bool = False) -> Rows:
    """Take each row's label from a column of class names or wnids, such as the labels of human annotators.

    If the set has classes, each value must be the name or the wnid of one of them. If it has none, the
    column's values become the classes, in sorted order, with numbers in numeric order: 2 comes before 10, as in
    `source: shards`. A whole number has the same name in every column type: 1.0 is `1`. -1 is a class like any other;
    `compute: {columns: {y: "nullif(y, -1)"}}` makes it no label. If no class has a number as its name, numbers from 0
    are labels. NULL is no label.

    Args:
        column: the column.
        keep_clean: whether the labels so far are the true ones and stay in `clean_label`; then the new ones are real
            noise.

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
    name, kind = quoted(column), rows.columns[column]
    value = _called(name, kind)
    classes = rows.classes
    if not classes:
        if rows.planning:
            raise NotKnownYet
        distinct = rows.con.execute(
            f"SELECT DISTINCT {value} FROM {rows} WHERE {name} IS NOT NULL"
        ).fetchall()
        values = [value for (value,) in distinct]
        classes = class_list(sorted(values, key=float) if _NUMBER(kind) else sorted_ids(values))
    index = {c.name: i for i, c in enumerate(classes)} | {c.id: i for i, c in enumerate(classes)}
    if not any(called.isdecimal() for called in index):
        index |= {str(i): i for i in range(len(classes))}
    table = rows.lookup({"_name": ("VARCHAR", list(index)), "_label": ("INTEGER", list(index.values()))})
    joined = rows.sql(
        f"SELECT r.*, _label FROM {rows} r LEFT JOIN {table} ON {_called(f'r.{name}', kind)} = _name",
        classes=classes,
    )
    joined.refuse(
        f"_label IS NULL AND {name} IS NOT NULL", f"have a {column!r} that is no class", show=value,
        hint=f"the classes are {', '.join(c.name for c in classes[:3])}, …",
    )  # fmt: skip
    clean = {"clean_label": "label"} if keep_clean else {}
    labelled = joined.with_columns({"label": "_label"} | clean)
    return labelled.sql(f"SELECT * EXCLUDE (_label) FROM {labelled}")


def _called(name: str, kind: str) -> str:
    """Return SQL for what a column's value is called: a whole number without a fraction, whatever its type."""
    if not re.match("FLOAT|DOUBLE|DECIMAL", kind):
        return f"{name}::VARCHAR"
    return (
        f"CASE WHEN {name} = trunc({name}) AND abs({name}) < {MAX_WHOLE} THEN {name}::BIGINT::VARCHAR "
        f"ELSE {name}::VARCHAR END"
    )
