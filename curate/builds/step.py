"""One step of a recipe, bound to its operation: what its plan and its build share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from curate.builds.ledger import compare, reasons, streamed
from curate.captions.texts import check_list
from curate.datasets.dataset import StepRecord, file_sha256, open_dataset
from curate.errors import CurateError, RecipeError, first_line, located
from curate.ops import Operation
from curate.rows.relation import Rows, columns_of, keep_classes
from curate.rows.sql import plain, text


@dataclass(frozen=True)
class Step:
    """One step, bound: where it stands, its operation, and all its arguments."""

    place: str
    operation: Operation
    arguments: Mapping[str, Any]

    @property
    def content(self) -> list[Any]:
        """What the step's result depends on: a file by its bytes, not its name."""
        content = dict(self.arguments)
        for parameter in self.operation.signature.files:
            content[parameter] = content[parameter] and "sha256:" + file_sha256(Path(content[parameter]))
        for parameter in self.operation.signature.datasets:
            content[parameter] = content[parameter] and open_dataset(content[parameter]).digest
        return [self.operation.name, self.operation.version, content]

    @property
    def ledger_arguments(self) -> dict[str, Any]:
        """The arguments that a ledger shows: those that differ from saying nothing."""
        return {k: v for k, v in self.arguments.items() if v is not None and k != "seed"}


def check_result(where: str, rows: Rows) -> None:
    """Refuse columns that a set cannot have.

    Raises:
        RecipeError: `captions` is no list of texts.
    """
    try:
        check_list(rows)
    except CurateError as error:
        raise located(error, where) from None


def bind_rows(step: Step, rows: Rows) -> Rows:
    """Apply a step to an empty table, to see what it makes of the columns.

    Raises:
        RecipeError, DataError: from the operation, with the step's place.
    """
    with located_errors(step):
        return _applied(step, rows)


def take_step(step: Step, rows: Rows, table: str) -> tuple[Rows, StepRecord]:
    """Run a step over rows and keep what comes out in a table; return it and the ledger's record of it.

    Streamed rows that the step only looks at one by one stay so, and no table is made of them.

    Raises:
        RecipeError, DataError: from the operation, with the step's place.
    """
    with located_errors(step):
        if rows.streamed and not step.operation.streams(step.arguments):
            rows = rows.kept()
        before, rows = rows.notes, replace(rows, notes=())
        result = _applied(step, rows)
        refused = reasons(result)
        after = replace(result, name=table, refused=None, notes=())
        if result.streamed:
            rows.con.execute(f"CREATE TEMP VIEW {table} AS FROM {result}")
            # What a step refuses is counted already: the rows need not be read again for it.
            counted = bool(result.refused) and result.known_count is None
            count = rows.count() - sum(refused.values()) if counted else after.count()
            after, notes = replace(after, known_count=count), list(result.notes)
        else:
            rows.con.execute(f"CREATE TEMP TABLE {table} AS FROM {result}")
            after, dropped = compacted(after)
            notes = [*before, *result.notes, *dropped]
    record = streamed if rows.streamed else compare  # of streamed rows labels and captions stayed
    return after, record(
        step.operation.name, step.ledger_arguments, rows, after, refused=refused, notes=notes
    )


def _applied(step: Step, rows: Rows) -> Rows:
    result = step.operation(rows, **step.arguments)
    return replace(result, columns=columns_of(rows.con, result.name))


def compacted(rows: Rows) -> tuple[Rows, list[str]]:
    """Drop the classes that no row has any more, so that labels are dense; return a note of them."""
    clean = ", clean_label" if "clean_label" in rows.columns else ""
    pairs = rows.con.execute(f"SELECT DISTINCT label{clean} FROM {rows}").fetchall()
    labels = {label for pair in pairs for label in pair if label is not None}
    empty = [c.id for i, c in enumerate(rows.classes) if i not in labels]
    if not empty:
        return rows, []
    examples = ", ".join(empty[:3]) + (", …" if len(empty) > 3 else "")
    note = f"{len(empty):,} classes without rows left the list ({examples})"
    return keep_classes(rows, labels, unlabelled="keep"), [note]


@contextmanager
def located_errors(step: Step) -> Iterator[None]:
    """Add the step's place to an error, whether the step is being bound or runs over rows.

    Raises:
        RecipeError, DataError: from the operation, or from SQL.
    """
    where = f"{step.place} ({step.operation.name})"
    try:
        yield
    except CurateError as error:
        raise located(error, where) from error
    except (duckdb.ProgrammingError, duckdb.DataError) as error:
        message = binder_message(error)
        hint = next((hint for part, hint in _WAYS_OUT.items() if part in message), None)
        raise RecipeError(f"{where}: {message}{_sql_of(step)}", hint=hint) from error


# What DuckDB says of a value that an expression cannot take → what to write instead.
_WAYS_OUT = {
    "Overflow in": "count in a wider type: `width::BIGINT * height`",
    "Could not convert": "`try_cast(x AS INTEGER)` is NULL where x is no such number",
    "Division by zero": "`x // nullif(y, 0)` is NULL where y is 0",
}


def _sql_of(step: Step) -> str:
    """Return the SQL that a step was given, for a message; nothing where it has none."""
    columns = step.arguments.get("columns")
    expressions = [step.arguments.get(name) for name in ("condition", "equal_to")]
    if isinstance(columns, Mapping) and step.operation.name == "compute":
        expressions += columns.values()
    quotes = ", ".join(repr(sql if len(sql) <= 200 else f"{sql[:60]}…") for sql in expressions if sql)
    return f" (in {quotes})" if quotes else ""


def binder_message(error: Exception) -> str:
    """Return what DuckDB says is wrong, without its drawing of the query and its own ways out."""
    return first_line(error).removeprefix("Binder Error: ").partition(" Use TRY(")[0]


def allow_only(
    con: Any, steps: Sequence[Step] = (), *, files: Sequence[str] = (), folders: Sequence[str] = ()
) -> None:
    """Take from a DuckDB connection, for good, all files but these and the steps': what a recipe says runs on it."""
    named = [file for s in steps for p in s.operation.signature.files if (file := s.arguments[p])]
    for option, paths in (("allowed_paths", [*files, *named]), ("allowed_directories", folders)):
        both = [*paths, *map(plain, paths)]  # as they are for writing, as patterns for reading
        con.execute(f"SET {option} = [{', '.join(map(text, both))}]")
    with suppress(duckdb.Error):  # a DuckDB without ICU has no zones, and no clock of the machine's to go by
        con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
