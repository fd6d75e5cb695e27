"""Layouts as data: which column of a published table is the URL, the caption, and so on."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from curate.errors import RecipeError, printable
from curate.rows.manifest import CORE
from curate.rows.relation import TEMPORARY
from curate.rows.sql import quoted
from curate.sources.table.layouts.texts import TEXTS, is_list, is_nested, refuse, texts_sql

# Columns that a layout may name, besides a table's own: column → DuckDB type.
COLUMNS = {
    "url": "VARCHAR",
    "caption": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "similarity": "DOUBLE",  # of image and caption, by a CLIP model that the layout names
    "language": "VARCHAR",  # ISO 639-1
    "nsfw": "VARCHAR",  # as published: UNLIKELY, UNSURE, NSFW; or a probability as text
    "sha256": "VARCHAR",  # of the image's bytes, in hex
    "title": "VARCHAR",  # a caption may be made of it and the description
    "description": "VARCHAR",
}

# Names that DuckDB and `union` use: a table's column of such a name is renamed, as one that begins with `_` is.
GIVEN = {"file_row_number", "rowid", "source"}
NEEDED = ("url", "caption")


class ColumnExpr(NamedTuple):
    """A column as a SQL expression over the columns of a file.

    Args:
        needs: columns that the file must have; the expression replaces them, so they are not carried along.
        sql: the expression; column names in it have no case.
        beside: columns that the file must have too, and that are carried along.
    """

    needs: tuple[str, ...]
    sql: str
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableLayout:
    """How one set is published.

    Args:
        name: the word for it in `as:`.
        about: what the set is, in a line: rows as published, where the text is from.
        origin: where its table is published.
        terms: what its publishers say of its use.
        columns: column of ours → where it comes from: a column of the file or SQL over some, in the order of
            preference. Releases differ; the first whose columns are all there is taken.
        signatures: sets of columns by which `auto` knows it: all of one must be present. None: it is never guessed.
        unlike: columns that speak against it, though a signature is present.
        headers: the columns where files have no header line, one tuple for each number of columns.
        delimiter: of text files.
        quote: the quotation mark of text files; empty where quotes are part of the text.
        nested: columns by which a file shows that it is one JSON object with the pairs inside it. To read it,
            DuckDB's `maximum_object_size` must be the file's size or more.
        rows: SQL that makes one row a pair of a nested file, with `{file}` for what reads it.
        identity: the columns that a row is known by; without `url` among them, rows need none.
    """

    name: str
    about: str
    origin: str
    terms: str
    columns: Mapping[str, tuple[str | ColumnExpr, ...]]
    signatures: tuple[tuple[str, ...], ...] = ()
    unlike: tuple[str, ...] = ()
    headers: tuple[tuple[str, ...], ...] = ()
    delimiter: str | None = None
    quote: str | None = None
    nested: tuple[str, ...] = ()
    rows: str | None = None
    identity: tuple[str, ...] = ("url", "caption")

    @property
    def key(self) -> str:
        """SQL for the key of a row: the MD5 of what it is known by, a line each."""
        return f"md5({' || chr(10) || '.join(map(quoted, self.identity))})"

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the usual release without a header line."""
        return self.headers[0] if self.headers else ()

    def header(self, width: int, *, where: str) -> tuple[str, ...]:
        """Return the names of the columns of a file without a header line.

        Args:
            width: how many columns the file has.
            where: the file, for messages.

        Raises:
            RecipeError: the layout has no such number of columns.
        """
        for names in self.headers:
            if len(names) == width:
                return names
        known = " or ".join(str(len(names)) for names in self.headers)
        raise RecipeError(
            f"{where}: {width} columns and no header line; layout {self.name!r} has {known or 'a header line'}",
            hint="a first line with the columns' names says what they are",
        )

    def unnesting(self, present: Collection[str], file: str) -> str | None:
        """Return SQL that makes a row of each pair in a nested file; None if a file with these columns needs none.

        Args:
            file: SQL that reads the file, as after FROM.
        """
        inside = self.nested and {n.lower() for n in present}.issuperset(self.nested)
        return self.rows.format(file=file) if inside and self.rows else None

    def source_of(self, column: str, present: Mapping[str, str]) -> str | None:
        """Return the file's column that a column of ours is copied from; None if it is computed or missing.

        Lists and structs are skipped, except for the URL and the caption.
        """
        names = {name.lower(): name for name in present}
        for candidate in map(_as_expr, self.columns.get(column, ())):
            if names.keys() >= {n.lower() for n in _all_of(candidate)}:
                name = names[candidate.needs[0].lower()] if len(candidate.needs) == 1 else ""
                plain = name and candidate.sql == quoted(candidate.needs[0])
                if not plain or column in NEEDED or not is_nested(present[name]):
                    return name if plain else None
        return None

    def select(self, present: Mapping[str, str], *, where: str) -> dict[str, str]:
        """Return column → SQL over a file's columns: those that the layout names, then the others.

        Columns that the file lacks are left out, except the URL and the caption, which are required. A caption that is
        a list of texts becomes `captions`, and its first text the caption. The other columns get their names in lower
        case; a column whose name begins with `_`, or that a core column has, becomes `table_NAME`.

        Args:
            present: the file's columns and their DuckDB types.
            where: the file, for messages.

        Raises:
            RecipeError: the file has no column for the URL or the caption, or one that is no text.
        """
        types = {name.lower(): kind for name, kind in present.items()}
        chosen: dict[str, str] = {}
        used: set[str] = set()
        for column, candidates in self.columns.items():
            for candidate in map(_as_expr, candidates):
                if types.keys() >= {n.lower() for n in _all_of(candidate)}:
                    nested = [n for n in candidate.needs if is_nested(types[n.lower()])]
                    if nested and column not in NEEDED:
                        continue
                    chosen |= _typed(candidate, column, types, where)
                    used.update(n.lower() for n in candidate.needs)
                    break
        for needed in NEEDED:
            if needed not in chosen:
                wanted = " or ".join(" with ".join(_all_of(_as_expr(c))) for c in self.columns[needed])
                raise RecipeError(
                    f"{where}: no column for the {needed} (layout {self.name!r} has it as {wanted})",
                    hint=f"its columns are {printable(', '.join(present))}; `as:` names the layout",
                )
        taken, own = {*chosen, *GIVEN, *CORE}, {n: n.lower() for n in present if n.lower() not in used}
        free = set(own.values()) - taken
        for name, plain in own.items():
            if _is_another(plain, present[name]):
                taken.add(plain)
            while plain in taken or plain.startswith(TEMPORARY) or (plain != name.lower() and plain in free):
                plain = f"table_{plain}"
            taken.add(plain)
            chosen[plain] = texts_sql(quoted(name), TEXTS) if plain == "captions" else quoted(name)
        return chosen


def kinds(chosen: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the DuckDB type of each column that `TableLayout.select` returned."""
    own = {quoted(name): kind for name, kind in present.items()}
    return {c: own.get(sql) or (COLUMNS | {"captions": TEXTS})[c] for c, sql in chosen.items()}


def _is_another(name: str, kind: str) -> bool:
    """Tell whether a column is not what its name says: `captions` is a list of texts, the others are no lists."""
    return kind != TEXTS if name == "captions" else name in COLUMNS and is_nested(kind)


def whole(sql: str) -> str:
    """Return SQL for a value as an INTEGER from 0; NULL for any other value, also one with decimals."""
    number = f"TRY_CAST({sql} AS INTEGER)"
    return f"CASE WHEN TRY_CAST({sql} AS DOUBLE) = {number} AND {number} >= 0 THEN {number} END"


def _typed(expr: ColumnExpr, column: str, types: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the SQL of a column, and of `captions` if the column is a list of texts.

    A column of another type is cast, but a FLOAT stays a FLOAT, so that 0.29 is not below 0.29. Bytes (of files that
    do not mark texts as UTF-8) are decoded; bytes that are no UTF-8 become NULL.
    """
    kind = next((types[n.lower()] for n in expr.needs if expr.sql == quoted(n)), None)
    sql, wanted = expr.sql, COLUMNS[column]
    if column == "caption" and kind is not None and is_list(kind):
        texts = texts_sql(sql, kind)
        return {"caption": f"({texts})[1]", "captions": texts}
    for name in (n for n in expr.needs if is_nested(types[n.lower()])):
        wanted = "a URL" if column == "url" else "a text or a list of texts" if kind else "a text"
        refuse(name, types[name.lower()], where=where, wanted=wanted)
    for name in (n for n in expr.needs if types[n.lower()] == "BLOB"):
        sql = re.sub(
            rf'"?\b{re.escape(name)}\b"?', lambda m: f"TRY(decode({m[0]}))", sql, flags=re.IGNORECASE
        )
        kind = kind and "VARCHAR"
    if kind == wanted or (wanted, kind) == ("DOUBLE", "FLOAT"):
        return {column: sql}
    return {column: whole(sql) if wanted == "INTEGER" else f"TRY_CAST({sql} AS {wanted})"}


def _as_expr(candidate: str | ColumnExpr) -> ColumnExpr:
    return ColumnExpr((candidate,), quoted(candidate)) if isinstance(candidate, str) else candidate


def _all_of(candidate: ColumnExpr) -> tuple[str, ...]:
    return candidate.needs + candidate.beside
