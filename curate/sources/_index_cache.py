"""The index of a source: made once, kept in the cache, good for as long as the fingerprint stays."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from curate.errors import DataError, RecipeError
from curate.io.files import cache_folder, write_atomic
from curate.rows.manifest import CORE, KEY_LIMIT, Class, content_digest, ordered, rows_digest
from curate.rows.relation import columns_of
from curate.rows.sql import copy_parquet, quoted, text
from curate.sources import Index

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_VERSION = 3
NAMES_KEPT = 100  # of the files left out, for each reason

_PLAIN = re.compile(r"[A-Za-z0-9_/-]+").fullmatch
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}").fullmatch
_ODD = re.compile(r"[^A-Za-z0-9_/-]|_(?=x[0-9A-F]{2})")


def make_key(name: str) -> str:
    """Return the key of a file's name without its extension: one-to-one, `[A-Za-z0-9_/-]` only, ≤ 200 long.

    Any other character becomes `_xHH` for each byte of its UTF-8, and so does a `_` that would read as such.
    A name too long keeps its start and ends in its MD5.
    """
    if not _PLAIN(name) or "_x" in name:
        name = _ODD.sub(
            lambda m: "".join(f"_x{b:02X}" for b in m[0].encode("utf-8", "surrogateescape")), name
        )
    if len(name) > KEY_LIMIT:
        name = f"{name[: KEY_LIMIT - 34]}_h{hashlib.md5(name.encode()).hexdigest()}"
    return name


def class_list(ids: Sequence[str]) -> tuple[Class, ...]:
    """Return the classes of ids in this order; wnids get their WordNet name, others are their own."""
    from curate.wordnet import nouns, unique_names

    wnids = [i for i in ids if i in nouns()]
    names = dict(zip(wnids, unique_names(wnids), strict=True))
    taken = set(names.values())
    for name in (i for i in ids if i not in names):
        names[name] = name
        while names[name] in taken:  # a folder called as WordNet calls another
            names[name] += " (folder)"
        taken.add(names[name])
    return tuple(Class(names[i], i if i in nouns() else None) for i in ids)


def in_order(ids: Iterable[str]) -> list[str]:
    """Return the ids of classes in their order: sorted, and by value where all are whole numbers."""
    ids = list(ids)
    return sorted(ids, key=int) if all(map(_WHOLE, ids)) else sorted(ids)


class LeftOut:
    """What became no row, and why; and what else the ledger should say of the rows."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count a file, or so many rows of it, under a reason."""
        self.counts[reason] += count
        kept = self.names.setdefault(reason, [])
        if len(kept) < NAMES_KEPT:  # bytes that are no UTF-8 are shown, for JSON could not hold them
            kept.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))

    def take(self, counts: Mapping[str, int], names: Mapping[str, list[str]]) -> None:
        """Add what another source left out."""
        self.counts.update(counts)
        for reason, more in names.items():
            self.names[reason] = [*self.names.get(reason, []), *more][:NAMES_KEPT]

    def __str__(self) -> str:
        return "; ".join(
            f"{n:,} {reason} (such as {self.names[reason][0]})" for reason, n in self.counts.most_common()
        )


def cached(
    kind: str,
    identity: dict[str, Any],
    fingerprint: str,
    make: Callable[[], tuple[pa.Table | str, tuple[Class, ...], LeftOut]],
) -> Index:
    """Return the index kept for this fingerprint, or make and keep it.

    Args:
        kind: the source's name.
        identity: what tells this source from others (path and options).
        make: reads the source: its rows with any columns (a table, or SQL over files that gives one), its
            classes, what it left out.
    """
    place = hashlib.sha256(json.dumps([kind, identity], sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / "indexes"
    kept = folder / f"{place}.json"
    try:
        record = json.loads(kept.read_text())
        parquet = folder / record["parquet"]
        if record["fingerprint"] == fingerprint and record["version"] == INDEX_VERSION and parquet.exists():
            return _index(record, parquet)
    except (OSError, ValueError, KeyError):
        pass  # nothing kept, or nothing usable
    table, classes, left_out = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = _write(folder, place, table, classes, left_out) | {"fingerprint": fingerprint}
        write_atomic(kept, json.dumps(record).encode())
    except OSError as error:
        raise DataError(
            f"{folder}: the index cannot be written ({error.strerror})",
            hint="set CURATE_CACHE to a folder with room",
        ) from error
    return _index(record, folder / record["parquet"])


def _write(
    folder: Path, place: str, table: pa.Table | str, classes: tuple[Class, ...], left_out: LeftOut
) -> dict[str, Any]:
    """Write the rows in key order and return the record that describes them."""
    parquet = folder / f"{place}.parquet"
    with tempfile.TemporaryDirectory(dir=folder) as work, duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(work)}")
        if isinstance(table, str):
            con.execute(f"CREATE TEMP VIEW found AS {table}")
        else:
            con.register("found", table)
        columns = ordered(columns_of(con, "found"))
        chosen = ", ".join(
            f"{quoted(c)}::{CORE[c]} AS {quoted(c)}" if c in CORE else quoted(c) for c in columns
        )
        con.execute(f"CREATE TEMP TABLE indexed AS SELECT {chosen} FROM found ORDER BY key")
        _refuse_duplicates(con)
        rows = rows_digest(con, "indexed", "rowid", columns)
        [count] = con.execute("SELECT count(*) FROM indexed").fetchall()[0]
        copy_parquet(con, "FROM indexed", parquet)
    return {
        "version": INDEX_VERSION,
        "parquet": parquet.name,
        "classes": [[c.name, c.wnid, list(c.fine)] for c in classes],
        "digest": content_digest(rows, classes),
        "rows": count,
        "left_out": left_out.names,
        "counts": dict(left_out.counts),
        "notes": left_out.notes,
    }


def _refuse_duplicates(con: Any) -> None:
    twice = con.execute(
        "SELECT key, list(file ORDER BY file)[1:2] FROM indexed GROUP BY key HAVING count(*) > 1 ORDER BY key"
    ).fetchall()
    if twice:
        key, files = twice[0]
        raise DataError(
            f"{len(twice):,} keys stand for two files or more; {key!r} is {' and '.join(files)}",
            hint="a key is the name without its extension; rename or remove one",
        )


def _index(record: dict[str, Any], parquet: Path) -> Index:
    classes = tuple(Class(name, wnid, tuple(fine)) for name, wnid, fine in record["classes"])
    index = Index.of(parquet, classes, record["digest"], record["rows"], record["left_out"], record["counts"])
    return replace(index, notes=tuple(record["notes"]))


def require_rows(count: int, place: str, left_out: LeftOut, what: str = "images") -> None:
    """Refuse a source that gave no rows.

    Raises:
        RecipeError: nothing was found, and why.
    """
    if not count:
        reasons = f": {left_out}" if left_out.counts else ""
        raise RecipeError(f"{place}: no {what}{reasons}", hint="is this the right place?")
