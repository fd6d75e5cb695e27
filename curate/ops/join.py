"""Bring columns from a table to the rows by key."""

from collections.abc import Sequence
from typing import Annotated, Literal

from curate.conditions import checked
from curate.errors import DataError, RecipeError, did_you_mean
from curate.manifests import quoted, text
from curate.ops import op
from curate.rows import Rows, columns_of
from curate.signatures import RecipeFile
from curate.texts import brought

FIXED = frozenset({"key", "file", "offset", "size", "ext", "width", "height", "label"})


@op(version=2)
def join(
    rows: Rows,
    *,
    file: Annotated[str, RecipeFile],
    columns: list[str] | None = None,
    by: str = "key",
    equal_to: str | None = None,
    missing: Literal["error", "keep", "drop"] = "error",
    several: Literal["error", "list"] = "error",
) -> Rows:
    """Bring columns from a table: scores, human labels, captions.

    A column that the rows have already is replaced, except what says where the bytes are and the label, which
    `label_from` sets. Rows of the table that no row of the set has are passed over. A `caption` comes in place of all
    texts that a row had. A list of texts, as `caption` or `captions`, is all that a row may say; where its caption is
    none of them, the first becomes it. Texts that were spoilt are not replaced: join before that step.

    Args:
        file: CSV or TSV with a header line, JSON lines or Parquet, `.gz` and `.zst` too. A column of text is numbers,
            truths or days where all of its values are; `0012` is a text. A line that is no row is refused.
        columns: which; all but `by` by default.
        by: the table's column that holds the key, or a column that both have, such as `url`.
        equal_to: what `by` must be equal to instead: SQL over the row, such as `parse_filename(file)`.
        missing: what to do with rows that the table does not have: refuse, keep with NULLs, or drop. That it has
            none of them is always an error.
        several: what to do with a key that the table has more than once, such as five captions of an image: refuse,
            or give each column as the list of its values, sorted.

    Example:
        join: {file: scores.csv, columns: [score]}
    """
    mine = checked(equal_to, rows.columns) if equal_to else quoted(by if by in rows.columns else "key")
    kind = "VARCHAR" if equal_to else rows.columns.get(by, "VARCHAR")
    table = rows.read(file, columns=columns, texts=[by, "caption"])
    found = columns_of(rows.con, table)
    wanted = [c for c in found if c != by] if columns is None else columns
    for column in [by, *wanted]:
        if column not in found:
            hint = did_you_mean(column, found) or f"it has {', '.join(found)}; `by` names the one to go by"
            raise RecipeError(f"{file}: has no column {column!r}", hint=hint)
    if taken := FIXED & set(wanted):
        raise RecipeError(
            f"{file}: column {min(taken)!r} would replace the rows' own",
            hint="name the `columns` to take; `label_from` turns a column into labels",
        )
    table = rows.keep(_as_wanted(table, by, wanted, several))
    _refuse_twice(rows, table, by, file)
    new = [c for c in wanted if c not in rows.columns]
    chosen = [f"{'t' if c in wanted else 'r'}.{quoted(c)}" for c in rows.columns]
    chosen += [f"t.{quoted(c)}" for c in new]
    joined = rows.sql(
        f"SELECT {', '.join(chosen)}, t.{quoted(by)} IS NOT NULL AS in_table, r.to_find "
        f"FROM (SELECT *, {mine}::{kind} AS to_find FROM {rows}) r LEFT JOIN {table} t "
        f"ON r.to_find = t.{quoted(by)}::{kind}"
    )
    joined = _counted(brought(rows, joined, wanted), table, by, file)
    if missing == "error" and not rows.planning:
        joined.refuse(
            "NOT in_table", f"are not in {file}", hint="`missing: keep` or `missing: drop` allows that"
        )
    bare = joined
    if missing == "drop":
        bare = joined.reject(f"CASE WHEN NOT in_table THEN {text('not in the table')} END", keep="drop")
    return bare.sql(f"SELECT * EXCLUDE (in_table, to_find) FROM {bare}")


def _as_wanted(table: str, by: str, wanted: Sequence[str], several: str) -> str:
    """Return SQL for the columns to join, each key once where lists are wanted."""
    if several == "error":
        return f"SELECT {', '.join(map(quoted, [by, *wanted]))} FROM {table}"
    lists = "".join(f", list({quoted(c)} ORDER BY {quoted(c)}) AS {quoted(c)}" for c in wanted)
    return f"SELECT {quoted(by)}{lists} FROM {table} GROUP BY {quoted(by)}"


def _counted(joined: Rows, table: str, by: str, file: str) -> Rows:
    """Note how many rows the table has; refuse a table that has none of them, and show what does not meet."""
    if joined.planning:
        return joined
    total, matched, ours = joined.con.execute(
        f"SELECT count(*), count(*) FILTER (in_table), min(to_find) FROM {joined}"
    ).fetchall()[0]
    if total and not matched:
        [(theirs,)] = joined.con.execute(f"SELECT min({quoted(by)}) FROM {table}").fetchall()
        raise DataError(
            f"none of the {total:,} rows is in {file}: the rows have {ours!r}, its {by!r} has {theirs!r}",
            hint="`by` names the table's column, `equal_to` what it must be equal to: `equal_to: parse_filename(file)`",
        )
    return joined.noted(f"{matched:,} of {total:,} rows are in the table")


def _refuse_twice(rows: Rows, table: str, by: str, file: str) -> None:
    if rows.planning:
        return
    count, examples = rows.con.execute(
        f"SELECT count(*), string_agg(k::VARCHAR, ', ') FILTER (rank <= 3) FROM (SELECT {quoted(by)} AS k, "
        f"row_number() OVER (ORDER BY {quoted(by)}) AS rank FROM {table} WHERE {quoted(by)} IS NOT NULL "
        f"GROUP BY 1 HAVING count(*) > 1)"
    ).fetchall()[0]
    if count:
        raise DataError(
            f"{file}: {count:,} values of {by!r} stand there more than once (such as {examples})",
            hint="`several: list` gives each row a list; or make it one line a row",
        )
