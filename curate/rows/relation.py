"""Rows: what operations take and return, a DuckDB relation with the classes of its labels."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import duckdb

from curate.errors import DataError, RecipeError, first_line, reject_unknown
from curate.io.progress import Quiet
from curate.rows import readers
from curate.rows.manifest import Class
from curate.rows.sql import quoted


class NotKnownYet(Exception):
    """Raised while planning if a step needs to read rows; the build checks the step later."""


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset. In an f-string they are their name: `rows.sql(f"SELECT * FROM {rows} WHERE …")`.

    Args:
        con: the build's DuckDB connection; it reads no files.
        name: of the view or table that holds the rows.
        columns: column → DuckDB type, in the relation's order.
        known: the classes in label order; None while planning over a source that is not read yet.
        planning: whether the relation has columns but no rows.
        root: the folder or URL that `file` is relative to, for operations that read bytes; None while planning.
        progress: gets the progress of operations that read bytes.
        refused: a relation with the `reason` of every row that this step dropped or flagged.
        notes: further lines for the ledger about this step.
        streamed: whether each query reads the rows from the source's files again.
        known_count: the number of rows, if it was counted already.
    """

    con: Any
    name: str
    columns: dict[str, str]
    known: tuple[Class, ...] | None
    planning: bool = False
    root: str | None = None
    refused: str | None = None
    notes: tuple[str, ...] = ()
    progress: Quiet = Quiet()  # noqa: RUF009 - it has no state
    streamed: bool = False
    known_count: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def classes(self) -> tuple[Class, ...]:
        """The classes in label order."""
        if self.known is None:
            raise NotKnownYet
        return self.known

    def sql(self, query: str, *, classes: Sequence[Class] | None = None, refused: str | None = None) -> Rows:
        """Return the rows of a query, with other classes if given."""
        name = f"rows_{next(_names)}"
        self.con.execute(f"CREATE TEMP VIEW {name} AS {query}")
        known = self.known if classes is None else tuple(classes)
        columns = columns_of(self.con, name)
        return replace(self, name=name, columns=columns, known=known, known_count=None)

    def with_columns(
        self,
        set_to: Mapping[str, str] | None = None,
        /,
        *,
        classes: Sequence[Class] | None = None,
        **named: str,
    ) -> Rows:
        """Return the rows with columns set to SQL expressions over the old columns; unknown columns are added."""
        expressions = {**(set_to or {}), **named}
        old = [
            f"{expressions.pop(c)} AS {quoted(c)}" if c in expressions else quoted(c) for c in self.columns
        ]
        new = [f"{expression} AS {quoted(c)}" for c, expression in expressions.items()]
        rows = self.sql(f"SELECT {', '.join(old + new)} FROM {self}", classes=classes)
        return replace(rows, known_count=self.known_count)

    def lookup(self, columns: dict[str, tuple[str, Sequence[Any]]]) -> str:
        """Create a table of small columns (name → (type, values)) and return its name."""
        name = f"lookup_{next(_names)}"
        parts = ", ".join(f"{quoted(c)} {kind}" for c, (kind, _) in columns.items())
        self.con.execute(f"CREATE TEMP TABLE {name} ({parts})")
        lists = [list(values) for _, values in columns.values()]
        if lists[0]:
            casts = ", ".join(f"unnest(?::{kind}[])" for kind, _ in columns.values())
            self.con.execute(f"INSERT INTO {name} SELECT {casts}", lists)
        return name

    def read(self, file: str, *, columns: Collection[str] | None = None, texts: Collection[str] = ()) -> str:
        """Create a view of a file that a step names (CSV, TSV, JSON lines or Parquet) and return its name.

        A column of a text file gets the type of all its values: 64-bit integer, number, boolean, or date or timestamp
        in ISO form. Otherwise it is text, as are numbers with leading zeros.

        Args:
            file: the path; the plan has checked that the recipe may read it.
            columns: those whose type matters; None for all.
            texts: columns that are texts whatever they look like.

        Raises:
            RecipeError: the file is no such table.
            DataError: a line of the file is no row.
        """
        name = f"table_{next(_names)}"
        try:
            readers.make_view(self.con, name, file, columns=columns, texts=texts)
        except duckdb.Error as error:
            raise RecipeError(
                f"{file}: cannot be read as a table ({first_line(error)})",
                hint="a CSV or TSV with a header line, JSON lines or Parquet, by its ending",
            ) from None
        return name

    def count(self) -> int:
        """Return the number of rows."""
        return self.scalar(f"SELECT count(*) FROM {self}") if self.known_count is None else self.known_count

    def distinct(self) -> int:
        """Return the number of different keys; only streamed rows may share a key."""
        return self.scalar(f"SELECT count(DISTINCT key) FROM {self}") if self.streamed else self.count()

    def kept(self, query: str | None = None) -> Rows:
        """Return the rows, or those of a query, in a table. Streamed rows that share a key are reduced to one.

        If these rows differ, the one whose JSON sorts first stays.
        """
        name = self.keep(query or f"FROM {self}")
        rows = replace(
            self,
            name=name,
            columns=columns_of(self.con, name),
            streamed=False,
            known_count=None,
            refused=None,
        )
        if not self.streamed or self.planning:
            return rows
        twice = self.keep(f"SELECT key FROM {name} GROUP BY key HAVING count(*) > 1")
        again = "SELECT rowid FROM (SELECT rowid, row_number() OVER (PARTITION BY key ORDER BY to_json(r)::VARCHAR) "
        again += f"AS place FROM {name} r WHERE key IN (FROM {twice})) WHERE place > 1"
        [(gone,)] = self.con.execute(f"DELETE FROM {name} WHERE rowid IN ({again})").fetchall()
        return (
            rows.noted(f"{gone:,} rows that say again what another says (URL and text) went")
            if gone
            else rows
        )

    def keep(self, query: str) -> str:
        """Store the result of a query in a table and return its name; while planning the table is empty."""
        name = f"kept_{next(_names)}"
        self.con.execute(f"CREATE TEMP TABLE {name} AS {query}{' LIMIT 0' if self.planning else ''}")
        return name

    def reject(self, reason: str, *, keep: Literal["drop", "flag"]) -> Rows:
        """Drop the rows that have a reason, or flag them with it in the column `rejected`.

        A row that is flagged already keeps its first reason. The ledger counts dropped and flagged rows by reason.

        Args:
            reason: a SQL expression, NULL for the rows that stay.
            keep: `drop` or `flag`.
        """
        if keep == "flag":
            had = "rejected" if "rejected" in self.columns else "NULL"
            reasons = f"SELECT {reason} AS reason FROM {self} WHERE {had} IS NULL"
            refused = f"(SELECT 'flagged: ' || reason AS reason FROM ({reasons}) WHERE reason IS NOT NULL)"
            return replace(self.with_columns(rejected=f"coalesce({had}, {reason})"), refused=refused)
        judged = self.sql(f"SELECT *, {reason} AS _reason_to_go FROM {self}")
        refused = f"(SELECT _reason_to_go AS reason FROM {judged} WHERE _reason_to_go IS NOT NULL)"
        rows = judged.sql(f"SELECT * EXCLUDE (_reason_to_go) FROM {judged} WHERE _reason_to_go IS NULL")
        return replace(rows, refused=refused)

    def noted(self, note: str) -> Rows:
        """Return the same rows with another note for the ledger."""
        return replace(self, notes=(*self.notes, note))

    def scalar(self, query: str) -> Any:
        """Return the one value of a query."""
        return self.con.execute(query).fetchall()[0][0]

    def require(self, column: str, hint: str) -> None:
        """Refuse rows without a column.

        Raises:
            RecipeError: the column is missing.
        """
        if column not in self.columns:
            raise RecipeError(f"the rows have no column {column!r}", hint=hint)

    def refuse(self, condition: str, what: str, *, hint: str, show: str = "key") -> None:
        """Refuse rows that meet a condition, with their count and three examples.

        Raises:
            DataError: there are such rows.
        """
        count, examples = self.con.execute(
            f"SELECT count(*), string_agg(shown, ', ') FILTER (rank <= 3) FROM "
            f"(SELECT {show} AS shown, row_number() OVER (ORDER BY key) AS rank FROM {self} WHERE {condition})"
        ).fetchall()[0]
        if count:
            raise DataError(f"{count:,} rows {what} (such as {examples})", hint=hint)

    def require_labels(self) -> None:
        """Refuse rows without a label, and sets without classes."""
        self.refuse("label IS NULL", "have no label", hint="drop them first: `where: label IS NOT NULL`")
        if not self.classes:
            raise RecipeError("the source has no classes", hint="use a source with class folders or labels")


_names = itertools.count()

TEMPORARY = "_"  # the names of all columns that a step adds for itself begin so; no other column's do
FLOATS = ("FLOAT", "DOUBLE")  # the types that have a NaN


def columns_of(con: Any, name: str) -> dict[str, str]:
    """Return a relation's columns and their DuckDB types, in order."""
    query = f"DESCRIBE SELECT * FROM {name}" if name.startswith("(") else f"DESCRIBE {name}"
    return {c[0]: str(c[1]) for c in con.execute(query).fetchall()}


def without_nan(columns: Mapping[str, str]) -> str:
    """Return the SQL after `SELECT *` that turns NaN into NULL.

    DuckDB sorts NaN above all numbers, so it would be the best score. Columns of a source are cleaned here once;
    `curate.rows.conditions` does the same for expressions.

    Args:
        columns: column → DuckDB type.
    """
    floats = [c for c, kind in columns.items() if kind in FLOATS]
    return f"REPLACE ({', '.join(f'{number(quoted(c))} AS {quoted(c)}' for c in floats)})" if floats else ""


def number(sql: str) -> str:
    """Return SQL for a floating-point number with NULL in place of NaN.

    Neither `isnan(x)` nor a comparison with NaN would do: Parquet's statistics leave NaN out, and DuckDB 2.0 answers
    both from them.
    """
    return f"CASE WHEN isfinite({sql}) OR isinf({sql}) THEN {sql} END"


def class_ids(rows: Rows, wanted: Sequence[str], *, where: str) -> list[int]:
    """Return the labels of classes, by wnid or name.

    Raises:
        RecipeError: a class is unknown; the hint names the nearest.
    """
    index = {c.name: i for i, c in enumerate(rows.classes)} | {c.id: i for i, c in enumerate(rows.classes)}
    first = f"the first are {', '.join(list(index)[:3])}"
    for name in wanted:
        message = f"{where}: no class {name!r} among the {len(rows.classes)} of the source"
        reject_unknown(name, index, message, hint=first)
    return [index[name] for name in wanted]


def remap(
    rows: Rows,
    new: Sequence[int | None],
    classes: Sequence[Class],
    *,
    unlabelled: Literal["keep", "drop"] = "drop",
) -> Rows:
    """Return the rows under other classes; rows whose class maps to None are dropped.

    `clean_label`, if there is one, is mapped too; it becomes NULL if the true class is dropped.

    Args:
        new: the new label of each old one.
        classes: the new classes in label order.
        unlabelled: what to do with rows that have no label.
    """
    pairs = [(old, n) for old, n in enumerate(new) if n is not None]
    table = rows.lookup(
        {"old": ("INTEGER", [o for o, _ in pairs]), "new": ("INTEGER", [n for _, n in pairs])}
    )
    swap = {"label": "m.new AS label", "clean_label": "c.new AS clean_label"}
    chosen = ", ".join(swap.get(c, f"r.{quoted(c)}") for c in rows.columns)
    clean = f"LEFT JOIN {table} c ON r.clean_label = c.old" if "clean_label" in rows.columns else ""
    stays = "m.new IS NOT NULL" + (" OR r.label IS NULL" if unlabelled == "keep" else "")
    query = f"SELECT {chosen} FROM {rows} r LEFT JOIN {table} m ON r.label = m.old {clean} WHERE {stays}"
    return rows.sql(query, classes=classes)


def keep_classes(rows: Rows, labels: Iterable[int], *, unlabelled: Literal["keep", "drop"] = "drop") -> Rows:
    """Return the rows of some classes, labelled 0, 1, 2, … in the order of their old labels."""
    new_labels = {old: new for new, old in enumerate(sorted(set(labels)))}
    new = [new_labels.get(i) for i in range(len(rows.classes))]
    return remap(rows, new, [rows.classes[i] for i in new_labels], unlabelled=unlabelled)
