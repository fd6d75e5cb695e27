"""Texts of a row: `caption`, the list `captions` of all its captions, and both as they were before any noise.

Every step that writes texts uses this module, so that all texts of a row change together. If a row has `captions`, its
`caption` is one of them; `clean_caption` and `clean_captions` are the texts before any noise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from curate.errors import RecipeError
from curate.rows.relation import Rows
from curate.rows.sql import quoted, text

LIST = "captions"
LIST_TYPE = "VARCHAR[]"
CLEAN = {"caption": "clean_caption", LIST: "clean_captions"}
TEXTS = frozenset(CLEAN)


def check_list(rows: Rows) -> None:
    """Refuse a column `captions` that is no list of texts.

    Raises:
        RecipeError: the column has another type.
    """
    kind = rows.columns.get(LIST, LIST_TYPE)
    if kind == LIST_TYPE:
        return
    way, why = "captions::VARCHAR[]", "makes texts of its values"
    if "STRUCT" in kind:
        way, why = "list_transform(captions, lambda c: c.text)", "takes the field `text` of each"
    elif not kind.endswith("[]"):
        way, why = "[captions]", "makes a list of one"
    hint = f'`compute: {{columns: {{captions: "{way}"}}}}` {why}'
    raise RecipeError(f"the column 'captions' is {kind}, and no list of texts ({LIST_TYPE})", hint=hint)


def replaced(rows: Rows, caption: str, captions: str | None = None, *, where: str | None = None) -> Rows:
    """Return the rows with new texts in place of all old ones, clean texts included.

    Args:
        caption: a SQL expression.
        captions: a SQL expression for the list of all captions, `caption` among them; None for no list.
        where: a SQL condition for the rows that get new texts; None for all.
    """
    check_list(rows)
    if where is None:
        gone = [c for c in (*CLEAN.values(), *([] if captions else [LIST])) if c in rows.columns]
        made = rows.with_columns({"caption": caption} | ({LIST: captions} if captions else {}))
        return _without(made, gone)
    new = {"caption": caption, LIST: "NULL", "clean_caption": caption, "clean_captions": "NULL"}
    held = {c: f"if({where}, {text}, {quoted(c)})" for c, text in new.items() if c in rows.columns}
    return rows.with_columns(held)


def spoilt(rows: Rows, to: Callable[[str], str]) -> Rows:
    """Return the rows with every text of theirs changed alike; the clean ones keep what it was.

    Args:
        to: takes the SQL of a text and returns that of what it becomes, which may depend on the row besides.
    """
    check_list(rows)
    changed = {"caption": to("caption")}
    if LIST in rows.columns:
        changed[LIST] = f"list_transform({LIST}, lambda one_text: {to('one_text')})"
    return spoilt_to(rows, changed)


def spoilt_to(rows: Rows, changed: Mapping[str, str]) -> Rows:
    """Return the rows with other texts (column → SQL, of each column of texts that there is); the clean ones stay."""
    kept = {c: f"coalesce({CLEAN[c]}, {c})" if CLEAN[c] in rows.columns else c for c in changed}
    return rows.with_columns(dict(changed) | {CLEAN[c]: clean for c, clean in kept.items()})


def restored(rows: Rows) -> Rows:
    """Return the rows with the texts that they had before any noise, and without the columns that kept them."""
    back = {c: clean for c, clean in CLEAN.items() if clean in rows.columns}
    made = rows.with_columns(back)
    return _without(settled(made), list(back.values()), told=False)


def brought(before: Rows, after: Rows, columns: Collection[str]) -> Rows:
    """Return rows to which a step brought `caption`, `captions` or both, so that they agree and are all there is.

    A `caption` that is a list becomes `captions`; where only a list was brought, its first text becomes the caption of
    rows whose own is none of them.

    Args:
        before: the rows before the step.
        after: the rows with the columns as the step made them.
        columns: what it brought.

    Raises:
        RecipeError: the rows' texts were spoilt before, or what was brought is no text.
        DataError: both were brought, and a row's caption is none of its list.
    """
    if not TEXTS & set(columns):
        return after
    if "clean_caption" in before.columns and "clean_caption" not in columns:
        raise RecipeError(
            "these rows' texts were spoilt by an earlier step (column clean_caption), and would get others",
            hint="bring them before that step, or `clean` first",
        )
    kind = after.columns["caption"]
    if kind == LIST_TYPE:
        after = after.with_columns({LIST: "caption", "caption": "NULL::VARCHAR"})
    elif kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION", "JSON")):
        raise RecipeError(
            f"'caption' would be {kind}, which is no text",
            hint="make it one text a row, or a list of texts (VARCHAR[])",
        )
    elif kind != "VARCHAR":
        after = after.with_columns(caption="caption::VARCHAR")
    if kind != LIST_TYPE and LIST not in columns:  # the caption is all that these rows say now
        check_list(after)
        return _without(after, [c for c in (LIST, "clean_captions") if c in after.columns])
    if after.columns[LIST] != LIST_TYPE:
        return after  # a later step may make texts of it; `check_list` is asked at the end
    after = after.with_columns(
        {LIST: f"nullif(list_filter({LIST}, lambda one_text: trim(one_text) <> ''), [])"}
    )
    if {"caption", LIST} <= set(columns):
        _refuse_apart(after)
    first = f"if({LIST} IS NULL OR coalesce(list_contains({LIST}, caption), false), caption, {LIST}[1])"
    return after.with_columns(caption=first)


def let(name: str, value: str, body: str) -> str:
    """Return SQL for `body` in which `name` stands for a value that is computed once; SQL has no word for that."""
    return f"list_transform([{value}], lambda {name}: {body})[1]"


def settled(rows: Rows) -> Rows:
    """Return the rows without the lists of those whose caption is none of their list, noting how many there are."""
    if rows.columns.get(LIST) != LIST_TYPE:
        return rows
    apart = f"{LIST} IS NOT NULL AND NOT coalesce(list_contains({LIST}, caption), false)"
    count = (
        0 if rows.planning else rows.scalar(f"SELECT count(*) FROM {rows} WHERE {apart} AND len({LIST}) > 0")
    )
    if not (count or rows.planning):
        return rows
    made = rows.with_columns({LIST: f"if({apart}, NULL, {LIST})"})
    return (
        made.noted(f"{count:,} rows lost their list `captions`: their caption is none of it")
        if count
        else made
    )


def _refuse_apart(rows: Rows) -> None:
    if not rows.planning:
        rows.refuse(
            f"caption IS NOT NULL AND NOT coalesce(list_contains({LIST}, caption), true)",
            "have a caption that is none of their captions",
            hint="bring `captions` alone: the first of them becomes the caption",
        )


def _without(rows: Rows, gone: list[str], *, told: bool = True) -> Rows:
    if not gone:
        return rows
    left = rows.sql(f"SELECT * EXCLUDE ({', '.join(map(quoted, gone))}) FROM {rows}")
    return left.noted(f"{', '.join(gone)} went: they are of other texts than `caption` now") if told else left


# RE2's \s knows six of them.
SPACES = r"\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"


def words_sql(column: str = "caption") -> str:
    """Return a DuckDB expression (VARCHAR[]) of the words of a column, in order; NULL of NULL."""
    return f"regexp_extract_all({column}, {text(f'[^{SPACES}]+')})"
