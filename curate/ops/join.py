"""Bring columns from a table to the rows by key."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from curate.captions.texts import brought
from curate.errors import DataError, RecipeError, reject_unknown
from curate.ops import op
from curate.recipes.signatures import RecipeFile
from curate.rows.conditions import checked
from curate.rows.relation import FLOATS, TEMPORARY, Rows, columns_of, number
from curate.rows.sql import quoted, text

FIXED = frozenset({"key", "file", "offset", "size", "ext", "width", "height", "label"})


@op(version=2)
def join(
    rows: Rows,
    *,
    file: Annotated[str, RecipeFile],
    columns: list[str] | dict[str, str] | None = None,
    by: str = "key",
    equal_to: str | None = None,
    missing: Literal["error", "keep", "drop"] = "error",
    several: Literal["error", "list"] = "error",
) -> Rows:
    """Bring columns from a table: scores, human labels, captions.

    A column that the rows already have is replaced, except the columns of the bytes, and the label, which
    `label_from` sets from a column of another name. Rows of the table without a row in the set are ignored. A new
    `caption` replaces all texts of a row. So does a list of texts, as `caption` or `captions`: if the row's caption is
    not in it, its first text becomes the caption. Spoilt texts are not replaced: join before the step that spoils.
    NaN in a column of numbers becomes NULL.

    Args:
        file: CSV or TSV with a header line, JSON lines or Parquet, `.gz` and `.zst` too. A column of text becomes
            numbers, truth values or dates if all of its values are; `0012` is a text. A line that is not a row is
            refused.
        columns: which, as a list, or with the names that they get here: `{label: their_label}`; all but `by` by
            default.
        by: the table's column that holds the key, or a column that both have, such as `url`.
        equal_to: what `by` must be equal to instead: SQL over the row, such as `parse_filename(file)`.
        missing: what to do with rows that the table does not have: refuse, keep with NULLs, or drop. If it has
            none of them, that is always an error.
        several: what to do with a key that the table has more than once, such as five captions of an image: refuse,
            or give each column as the list of its values, sorted.

    Example:
        join: {file: scores.csv, columns: [score]}
    """
    mine = checked(equal_to, rows.columns) if equal_to else quoted(by if by in rows.columns else "key")
    kind = "VARCHAR" if equal_to else rows.columns.get(by, "VARCHAR")
    captions = (
        [c for c, name in columns.items() if name == "caption"] if isinstance(columns, dict) else ["caption"]
    )
    table = rows.read(file, columns=columns, texts=[by, *captions])
    kinds = columns_of(rows.con, table)
    wanted = _wanted(kinds, columns, by, file)
    table = rows.keep(_as_wanted(table, by, kinds, wanted, several))
    _refuse_twice(rows, table, by, file)
    taken = {c.lower(): c for c in wanted.values()}  # SQL's names have no case
    chosen = [
        f"t.{quoted(taken.pop(c.lower()))} AS {quoted(c)}" if c.lower() in taken else f"r.{quoted(c)}"
        for c in rows.columns
    ]
    chosen += [f"t.{quoted(c)}" for c in taken.values()]
    joined = rows.sql(
        f"SELECT {', '.join(chosen)}, t._to_go_by IS NOT NULL AS _in_table, r._to_find "
        f"FROM (SELECT *, {mine}::{kind} AS _to_find FROM {rows}) r LEFT JOIN {table} t "
        f"ON r._to_find = t._to_go_by::{kind}"
    )
    joined = _counted(brought(rows, joined, list(map(str.lower, wanted.values()))), table, by, file)
    if missing == "error" and not rows.planning:
        joined.refuse(
            "NOT _in_table", f"are not in {file}", hint="`missing: keep` or `missing: drop` allows that"
        )
    bare = joined
    if missing == "drop":
        bare = joined.reject(f"CASE WHEN NOT _in_table THEN {text('not in the table')} END", keep="drop")
    return bare.sql(f"SELECT * EXCLUDE (_in_table, _to_find) FROM {bare}")


def _wanted(
    kinds: Mapping[str, str], columns: Sequence[str] | Mapping[str, str] | None, by: str, file: str
) -> dict[str, str]:
    """Return the columns of the table to take, each with its name among the rows.

    Raises:
        RecipeError: the table lacks one, or a name is the rows' own or that of two.
    """
    if columns is None:
        columns = [c for c in kinds if c != by]
    wanted = dict(columns) if isinstance(columns, Mapping) else {c: c for c in columns}
    for column in [by, *wanted]:
        hint = f"it has {', '.join(kinds)}; `by` names the one to go by"
        reject_unknown(column, kinds, f"{file}: has no column {column!r}", hint=hint)
    taken: dict[str, str] = {}
    for column, name in wanted.items():
        if name.lower() in FIXED:
            after = f", and after that `label_from: their_{column}`" if name.lower() == "label" else ""
            raise RecipeError(
                f"{file}: column {name!r} would replace the rows' own",
                hint=f"give it another name: `columns: {{{column}: their_{column}}}`{after}",
            )
        if name.startswith(TEMPORARY):
            raise RecipeError(
                f"{file}: column {name!r}: names that begin with {TEMPORARY} are the steps' own",
                hint=f"give it another name: `columns: {{{column}: their{column}}}`",
            )
        if other := taken.get(name.lower()):
            raise RecipeError(f"{file}: columns {other!r} and {column!r} would both be {name!r}")
        taken[name.lower()] = column
    return wanted


def _as_wanted(table: str, by: str, kinds: Mapping[str, str], wanted: Mapping[str, str], several: str) -> str:
    """Return SQL for the columns to join and the one `_to_go_by`, each key once where lists are wanted."""
    values = {c: number(quoted(c)) if kinds[c] in FLOATS else quoted(c) for c in wanted}
    if several == "list":
        values = {c: f"list({value} ORDER BY {value})" for c, value in values.items()}
    chosen = [f"{quoted(by)} AS _to_go_by", *(f"{v} AS {quoted(wanted[c])}" for c, v in values.items())]
    return f"SELECT {', '.join(chosen)} FROM {table}" + (
        f" GROUP BY {quoted(by)}" if several == "list" else ""
    )


def _counted(joined: Rows, table: str, by: str, file: str) -> Rows:
    """Note how many rows the table has; refuse a table that has none of them, and show what does not meet."""
    if joined.planning:
        return joined
    total, matched, ours = joined.con.execute(
        f"SELECT count(*), count(*) FILTER (_in_table), min(_to_find) FROM {joined}"
    ).fetchall()[0]
    if total and not matched:
        [(theirs,)] = joined.con.execute(f"SELECT min(_to_go_by) FROM {table}").fetchall()
        raise DataError(
            f"none of the {total:,} rows is in {file}: the rows have {ours!r}, its {by!r} has {theirs!r}",
            hint="`by` names the table's column, `equal_to` what it must be equal to: `equal_to: parse_filename(file)`",
        )
    return joined.noted(f"{matched:,} of {total:,} rows are in the table")


def _refuse_twice(rows: Rows, table: str, by: str, file: str) -> None:
    if rows.planning:
        return
    count, examples = rows.con.execute(
        f"SELECT count(*), string_agg(k::VARCHAR, ', ') FILTER (rank <= 3) FROM (SELECT _to_go_by AS k, "
        f"row_number() OVER (ORDER BY _to_go_by) AS rank FROM {table} WHERE _to_go_by IS NOT NULL "
        f"GROUP BY 1 HAVING count(*) > 1)"
    ).fetchall()[0]
    if count:
        raise DataError(
            f"{file}: {count:,} values of {by!r} stand there more than once (such as {examples})",
            hint="`several: list` gives each row a list; or make it one line a row",
        )
