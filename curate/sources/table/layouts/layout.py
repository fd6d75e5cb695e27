"""What a layout is: which columns of a published table are what, as data."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from curate.errors import RecipeError, printable
from curate.rows.manifest import CORE
from curate.rows.sql import quoted
from curate.sources.table.layouts.texts import TEXTS, is_list, is_nested, refuse, texts_sql

# What a table's rows may say of an image and its text, besides columns of their own: column → DuckDB type.
COLUMNS = {
    "url": "VARCHAR",
    "caption": "VARCHAR",
    "width": "INTEGER",
    "height": "INTEGER",
    "similarity": "DOUBLE",  # of image and caption, by a CLIP model that the layout names
    "language": "VARCHAR",  # ISO 639-1
    "nsfw": "VARCHAR",  # as the table says it: UNLIKELY, UNSURE, NSFW; or a probability as text
    "sha256": "VARCHAR",  # of the image's bytes, in hex
    "title": "VARCHAR",  # of which a caption was made, with the description
    "description": "VARCHAR",
}

# Names that steps give columns of their own while they work, or that DuckDB gives: no column of a table has them.
RESERVED = {
    "_drawn", "below_group", "below_limit", "elsewhere", "file_row_number", "in_table", "is_top", "part_number",
    "place", "ranks_at", "ranks_group", "ranks_key", "ranks_order", "ranks_place", "ranks_wanted", "reason_to_go",
    "rowid", "same", "shared_key", "source", "to_find", "wanted",
}  # fmt: skip
NEEDED = ("url", "caption")


class ColumnExpr(NamedTuple):
    """A column as SQL over columns of the file.

    Args:
        needs: the columns that must be there for it; it stands for them, so they are not carried besides.
        sql: the expression; column names in it have no case.
        beside: columns that must be there too, and go on under their own names.
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
        signatures: sets of columns by which `auto` knows it: all of one must be there. None: it is never guessed.
        unlike: columns that speak against it, though a signature is there.
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

    def unnesting(self, there: Collection[str], file: str) -> str | None:
        """Return SQL that makes one row a pair, where a file of these columns needs it.

        Args:
            there: the columns of the file as it is read.
            file: what stands after FROM to read it.
        """
        inside = self.nested and {n.lower() for n in there}.issuperset(self.nested)
        return self.rows.format(file=file) if inside and self.rows else None

    def source_of(self, column: str, there: Mapping[str, str]) -> str | None:
        """Return the file's column that one of ours is taken from as it is; None where it is made, or is not there.

        A list or a struct is no number and no word, so it is passed over; one for the URL or the caption is not.
        """
        names = {name.lower(): name for name in there}
        for candidate in map(_as_expr, self.columns.get(column, ())):
            if names.keys() >= {n.lower() for n in _all_of(candidate)}:
                name = names[candidate.needs[0].lower()] if len(candidate.needs) == 1 else ""
                plain = name and candidate.sql == quoted(candidate.needs[0])
                if not plain or column in NEEDED or not is_nested(there[name]):
                    return name if plain else None
        return None

    def select(self, there: Mapping[str, str], *, where: str) -> dict[str, str]:
        """Return column → SQL over a file's columns: what the layout names, then the others under their own names.

        A column that the file lacks is left out, but for the URL and the caption, which are needed. A caption that is
        a list of texts becomes `captions`, and the first of them the caption. Others get their names in lower case;
        one that would be taken for a core column or a step's own is called `table_NAME`.

        Args:
            there: the file's columns and their DuckDB types.
            where: the file, for messages.

        Raises:
            RecipeError: the file has no column for the URL or the caption, or one that is no text.
        """
        types = {name.lower(): kind for name, kind in there.items()}
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
                    hint=f"its columns are {printable(', '.join(there))}; `as:` names the layout",
                )
        taken, own = {*chosen, *RESERVED, *CORE}, {n: n.lower() for n in there if n.lower() not in used}
        free = set(own.values()) - taken
        for name, plain in own.items():
            if _is_another(plain, there[name]):
                taken.add(plain)
            while plain in taken or (plain != name.lower() and plain in free):
                plain = f"table_{plain}"
            taken.add(plain)
            chosen[plain] = texts_sql(quoted(name), TEXTS) if plain == "captions" else quoted(name)
        return chosen


def kinds(chosen: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Return the DuckDB type of each column that `TableLayout.select` chose of a file's."""
    own = {quoted(name): kind for name, kind in there.items()}
    return {c: own.get(sql) or (COLUMNS | {"captions": TEXTS})[c] for c, sql in chosen.items()}


def _is_another(name: str, kind: str) -> bool:
    """Whether a column is not what its name says: `captions` are a list of texts, and what is told is no list."""
    return kind != TEXTS if name == "captions" else name in COLUMNS and is_nested(kind)


def whole(sql: str) -> str:
    """Return SQL for a value as an INTEGER from 0; NULL where it is none, and so where it has decimals."""
    number = f"TRY_CAST({sql} AS INTEGER)"
    return f"CASE WHEN TRY_CAST({sql} AS DOUBLE) = {number} AND {number} >= 0 THEN {number} END"


def _typed(expr: ColumnExpr, column: str, types: Mapping[str, str], where: str) -> dict[str, str]:
    """Return the SQL of a column, and of `captions` where it is the first of several texts.

    It is cast where its type is another; a FLOAT stays one, so that 0.29 is not below 0.29. Bytes (of files that lack
    the mark of UTF-8) are decoded, to NULL where they are none.
    """
    there = next((types[n.lower()] for n in expr.needs if expr.sql == quoted(n)), None)
    sql, wanted = expr.sql, COLUMNS[column]
    if column == "caption" and there is not None and is_list(there):
        texts = texts_sql(sql, there)
        return {"caption": f"({texts})[1]", "captions": texts}
    for name in (n for n in expr.needs if is_nested(types[n.lower()])):
        wanted = "a URL" if column == "url" else "a text or a list of texts" if there else "a text"
        refuse(name, types[name.lower()], where=where, wanted=wanted)
    for name in (n for n in expr.needs if types[n.lower()] == "BLOB"):
        sql = re.sub(
            rf'"?\b{re.escape(name)}\b"?', lambda m: f"TRY(decode({m[0]}))", sql, flags=re.IGNORECASE
        )
        there = there and "VARCHAR"
    if there == wanted or (wanted, there) == ("DOUBLE", "FLOAT"):
        return {column: sql}
    return {column: whole(sql) if wanted == "INTEGER" else f"TRY_CAST({sql} AS {wanted})"}


def _as_expr(candidate: str | ColumnExpr) -> ColumnExpr:
    return ColumnExpr((candidate,), quoted(candidate)) if isinstance(candidate, str) else candidate


def _all_of(candidate: ColumnExpr) -> tuple[str, ...]:
    return candidate.needs + candidate.beside
