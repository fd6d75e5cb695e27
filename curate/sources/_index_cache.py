"""The index of a source: made once and cached until the source's fingerprint changes."""

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
    """Return the key of a file's name without extension: unique, of `[A-Za-z0-9_/-]`, at most 200 characters.

    Each byte of another character's UTF-8 becomes `_xHH`, and so does a `_` that would read as such an escape. A name
    that is too long keeps its beginning and ends in its MD5.
    """
    if not _PLAIN(name) or "_x" in name:
        name = _ODD.sub(
            lambda m: "".join(f"_x{b:02X}" for b in m[0].encode("utf-8", "surrogateescape")), name
        )
    if len(name) > KEY_LIMIT:
        name = f"{name[: KEY_LIMIT - 34]}_h{hashlib.md5(name.encode()).hexdigest()}"
    return name


def class_list(ids: Sequence[str]) -> tuple[Class, ...]:
    """Return the classes of some ids, in order; a wnid gets its WordNet name, any other id is its own name."""
    from curate.wordnet import nouns, unique_names

    wnids = [i for i in ids if i in nouns()]
    names = dict(zip(wnids, unique_names(wnids), strict=True))
    taken = set(names.values())
    for name in (i for i in ids if i not in names):
        names[name] = name
        while names[name] in taken:  # a folder that has the WordNet name of another
            names[name] += " (folder)"
        taken.add(names[name])
    return tuple(Class(names[i], i if i in nouns() else None) for i in ids)


def sorted_ids(ids: Iterable[str]) -> list[str]:
    """Return the ids of classes in label order: sorted, by value if all are whole numbers."""
    ids = list(ids)
    return sorted(ids, key=int) if all(map(_WHOLE, ids)) else sorted(ids)


class LeftOut:
    """The files and members that became no row, by reason, and further notes for the ledger."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {}
        self.notes: list[str] = []

    def add(self, reason: str, name: str, count: int = 1) -> None:
        """Count a file, or `count` of its rows, under a reason."""
        self.counts[reason] += count
        names = self.names.setdefault(reason, [])
        if len(names) < NAMES_KEPT:  # bytes that are no UTF-8 are escaped, for JSON
            names.append(name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))

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
    """Return the cached index of this fingerprint, or make and cache it.

    Args:
        kind: the name of the source.
        identity: path and options, which distinguish this source from others.
        make: reads the source; returns its rows (a table, or SQL over files), its classes, and what it left out.
    """
    stem = hashlib.sha256(json.dumps([kind, identity], sort_keys=True).encode()).hexdigest()[:24]
    folder = cache_folder() / "indexes"
    description = folder / f"{stem}.json"
    try:
        record = json.loads(description.read_text())
        parquet = folder / record["parquet"]
        if record["fingerprint"] == fingerprint and record["version"] == INDEX_VERSION and parquet.exists():
            return _index(record, parquet)
    except (OSError, ValueError, KeyError):
        pass  # nothing usable in the cache
    table, classes, left_out = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = _write(folder, stem, table, classes, left_out) | {"fingerprint": fingerprint}
        write_atomic(description, json.dumps(record).encode())
    except OSError as error:
        raise DataError(
            f"{folder}: the index cannot be written ({error.strerror})",
            hint="set CURATE_CACHE to a folder with room",
        ) from error
    return _index(record, folder / record["parquet"])


def _write(
    folder: Path, stem: str, table: pa.Table | str, classes: tuple[Class, ...], left_out: LeftOut
) -> dict[str, Any]:
    """Write the rows in key order and return the record that describes them."""
    parquet = folder / f"{stem}.parquet"
    with tempfile.TemporaryDirectory(dir=folder) as work, duckdb.connect() as con:
        con.execute(f"SET temp_directory = {text(work)}")
        if isinstance(table, str):
            con.execute(f"CREATE TEMP VIEW source_rows AS {table}")
        else:
            con.register("source_rows", table)
        columns = ordered(columns_of(con, "source_rows"))
        chosen = ", ".join(
            f"{quoted(c)}::{CORE[c]} AS {quoted(c)}" if c in CORE else quoted(c) for c in columns
        )
        con.execute(f"CREATE TEMP TABLE indexed AS SELECT {chosen} FROM source_rows ORDER BY key")
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


def require_rows(count: int, path: str, left_out: LeftOut, what: str = "images") -> None:
    """Refuse a source without rows.

    Raises:
        RecipeError: there are no rows; the message says why.
    """
    if not count:
        reasons = f": {left_out}" if left_out.counts else ""
        raise RecipeError(f"{path}: no {what}{reasons}", hint="is this the right place?")
