"""A row's texts as tables have them: one text, a list of them, or something else that is refused with a way out."""

from __future__ import annotations

import re

from curate.errors import RecipeError, printable
from curate.rows.sql import quoted, text

BLANKS = r"E' \t\r\n\f\v'"
TEXTS = "VARCHAR[]"  # the type of `captions`
ODD = "an object or a list where a text is expected"
_FIELDS = ("text", "caption", "raw", "sentence", "value")  # of a struct, those that likely hold its text
_FIELD = re.compile(r'(?:^|, ?)"?(?P<name>[^", ()]+)"? (?P<kind>[^,()]+)')


def is_nested(kind: str) -> bool:
    """Whether values of a DuckDB type have parts."""
    return kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "UNION("))


def is_list(kind: str) -> bool:
    """Whether a column of this DuckDB type may give a row several texts: a list of texts, or JSON of which some are."""
    return kind in (TEXTS, "JSON")


def texts_sql(sql: str, kind: str) -> str:
    """Return SQL for the list of a row's texts, without NULLs and blank ones.

    Of JSON numbers and truths are texts too; objects and lists inside a list are none.

    Args:
        sql: the column.
        kind: its DuckDB type, for which `is_list` holds.
    """
    if kind == "JSON":
        flat = f"json_type({sql}) NOT IN ('ARRAY', 'OBJECT', 'NULL')"
        inside = f"list_filter({sql}::JSON[], lambda x: json_type(x) NOT IN ('ARRAY', 'OBJECT', 'NULL'))"
        sql = (
            f"CASE WHEN json_type({sql}) = 'ARRAY' THEN list_transform({inside}, lambda x: x->>'$') "
            f"WHEN {flat} THEN [{sql}->>'$'] END"
        )
    return f"list_filter({sql}, lambda x: trim(x, {BLANKS}) <> '')"


def odd_sql(sql: str) -> str:
    """Return SQL that tells whether a JSON column has an object, or a list inside a list, where texts are expected."""
    inside = (
        f"list_transform(CASE WHEN json_type({sql}) = 'ARRAY' THEN {sql}::JSON[] END, lambda x: json_type(x))"
    )
    return f"(json_type({sql}) = 'OBJECT' OR coalesce(list_has_any({inside}, ['ARRAY', 'OBJECT']), false))"


def refuse(column: str, kind: str, *, where: str, wanted: str = "a text or a list of texts") -> None:
    """Refuse a column that is no text and no list of texts.

    Args:
        where: the file, for messages.
        wanted: what is expected of the column; "a URL" and "a text" are no lists.

    Raises:
        RecipeError: always; the hint is SQL that makes a table with such a column.
    """
    shown = kind if len(kind) <= 80 else f"{kind[:80]}…"
    made = _as_texts(quoted(column), kind)
    if wanted == "a URL" and kind.endswith("]"):
        made = f"unnest({made})"
    elif wanted == "a text" and kind.endswith("]"):
        made = f"array_to_string({made}, ' ')"
    sql = f"SELECT * REPLACE ({made} AS {quoted(column)}) FROM {text(where)}"
    raise RecipeError(
        printable(f"{where}: column {column!r} is {shown}, and not {wanted}"),
        hint=printable(f"make a table that has it, with DuckDB: COPY ({sql}) TO 'texts.parquet'"),
    )


def _as_texts(sql: str, kind: str) -> str:
    if kind.endswith("]"):
        inner = kind[: kind.rindex("[")]
        return f"list_transform({sql}, lambda x: {_as_texts('x', inner)})" if inner != "VARCHAR" else sql
    if kind.startswith("STRUCT("):
        fields = {m["name"]: m["kind"] for m in _FIELD.finditer(kind[len("STRUCT(") : -1])}
        likely = (
            [f for f in _FIELDS if f in fields] + [f for f, k in fields.items() if k == "VARCHAR"] + [*fields]
        )
        return f"{sql}.{quoted(likely[0])}" if likely else f"{sql}::VARCHAR"
    if kind.startswith("MAP("):
        return f"map_values({sql})::VARCHAR[]"
    return f"{sql}::VARCHAR"
