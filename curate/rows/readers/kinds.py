"""Types of text columns: a type that all values of a column have, else text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.rows.sql import quoted

FIRST = 2_048  # rows looked at to see which columns are texts

# Kind of a value → SQL that is true for it; the first counts. Numbers with leading zeros and dates in other forms than
# ISO's are texts: 0012 is not 12, and 01/02 is ambiguous. `exact` is a whole number that a DOUBLE holds, too.
_KINDS = {
    "exact": r"regexp_full_match({c}, '\s*[-+]?(0|[1-9][0-9]{{0,14}})\s*')",
    "whole": r"regexp_full_match({c}, '\s*[-+]?[1-9][0-9]{{15,18}}\s*') AND TRY_CAST({c} AS BIGINT) IS NOT NULL",
    "real": r"regexp_full_match({c}, '\s*[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?\s*') "
    r"AND NOT regexp_full_match({c}, '\s*[-+]?[0-9]+\s*') AND isfinite(TRY_CAST({c} AS DOUBLE))",
    "word": r"regexp_full_match({c}, '\s*[-+]?(nan|inf|infinity)\s*', 'i')",
    "truth": "lower({c}) IN ('true', 'false')",
    "day": r"regexp_full_match({c}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}') AND TRY_CAST({c} AS DATE) IS NOT NULL",
    "moment": r"regexp_full_match({c}, '[0-9]{{4}}(-[0-9]{{2}}){{2}} ([0-9]{{2}}:){{2}}[0-9]{{2}}(\.[0-9]{{1,6}})?') "
    "AND TRY_CAST({c} AS TIMESTAMP) IS NOT NULL",
}
# Type → the kinds that it holds, and those of which at least one must occur.
_TYPES = {
    "BIGINT": ({"exact", "whole"}, {"exact", "whole"}),
    "DOUBLE": ({"exact", "real", "word"}, {"exact", "real"}),
    "BOOLEAN": ({"truth"}, {"truth"}),
    "DATE": ({"day"}, {"day"}),
    "TIMESTAMP": ({"moment"}, {"moment"}),
}


def kinds_of(con: Any, read: str, columns: Sequence[str]) -> dict[str, str]:
    """Return the DuckDB type of text columns, from all values but NULL.

    Whole numbers that neither BIGINT nor, beside decimals, DOUBLE holds exactly are texts.

    Args:
        con: a DuckDB connection that may read the relation.
        read: the relation, as after FROM.
    """
    if not columns:
        con.execute(f"SELECT count(COLUMNS(*)) FROM {read}")  # raises the errors that reading a column would
        return {}
    first = _value_kinds(con, f"(FROM {read} LIMIT {FIRST})", columns)
    undecided = [
        c for c in columns if "text" not in first[c]
    ]  # one text makes the column text, whatever follows
    rest = _value_kinds(con, read, undecided or columns[:1])
    return {c: _type(rest[c]) if c in undecided else "VARCHAR" for c in columns}


def cast(column: str, kind: str) -> str:
    """Return SQL that casts a text column to a type from `kinds_of`."""
    # Without the trim DuckDB 2.0 moves the cast into the reading of the CSV, which knows fewer forms.
    return quoted(column) if kind == "VARCHAR" else f"trim({quoted(column)})::{kind} AS {quoted(column)}"


def _value_kinds(con: Any, read: str, columns: Sequence[str]) -> dict[str, set[str]]:
    """Return the kinds of the values of each column."""
    [row] = con.execute(f"SELECT {', '.join(map(_distinct, columns))} FROM {read}").fetchall()
    return {c: {k for k in kinds or [] if k} for c, kinds in zip(columns, row, strict=True)}


def _distinct(column: str) -> str:
    cases = " ".join(f"WHEN {sql.format(c=quoted(column))} THEN '{kind}'" for kind, sql in _KINDS.items())
    return f"list(DISTINCT CASE WHEN {quoted(column)} IS NULL THEN NULL {cases} ELSE 'text' END)"


def _type(kinds: set[str]) -> str:
    return next((t for t, (most, some) in _TYPES.items() if kinds <= most and kinds & some), "VARCHAR")
