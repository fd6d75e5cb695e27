"""Types of columns that a `.json` cannot tell, such as timestamps; beside shards of ours stands what they had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import duckdb

from curate.datasets.dataset import SHARDS, open_dataset
from curate.errors import CurateError
from curate.rows.manifest import CORE
from curate.rows.sql import quoted
from curate.sources.shards.fields import CAPTIONS, LABELS

if TYPE_CHECKING:
    import pyarrow as pa


def told_types(tars: Iterable[str]) -> dict[str, str]:
    """Return column → DuckDB type as the datasets say whose shards these tars are; only what all of them say.

    Texts are left out: a `.json` holds them as they are.
    """
    found: dict[str, str] | None = None
    for folder, files in _by_folder(tars).items():
        types = _types(folder, files)
        found = types if found is None else {c: t for c, t in found.items() if types.get(c) == t}
    return found or {}


def _by_folder(tars: Iterable[str]) -> dict[str, list[str]]:
    folders: dict[str, list[str]] = {}
    for tar in tars:
        folder, _, name = tar.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return folders


def _types(folder: str, files: list[str]) -> dict[str, str]:
    above, _, name = folder.rpartition("/")
    if name != SHARDS:
        return {}
    try:
        info = open_dataset(above).info
    except CurateError:
        return {}
    if not {f"{SHARDS}/{f}" for f in files} <= {s.file for s in info.shards or []}:
        return {}
    mine = {c: _canonical(kind) for c, kind in info.columns.items() if c not in (*CORE, *LABELS, CAPTIONS)}
    return {c: kind for c, kind in mine.items() if kind not in ("", "VARCHAR")}


def _canonical(kind: str) -> str:
    """Return a type as DuckDB writes it, so that nothing else gets into SQL; nothing where it is none."""
    try:
        return str(duckdb.sqltype(kind))
    except duckdb.Error:
        return ""


def cast(table: pa.Table, types: Mapping[str, str]) -> tuple[pa.Table, dict[str, int]]:
    """Return a table whose columns of JSON have their types; and of each how many values have not."""
    there = {c: t for c, t in types.items() if c in table.column_names}
    if not there:
        return table, {}
    made = ", ".join(f"TRY_CAST({quoted(c)}::JSON AS {t}) AS {quoted(c)}" for c, t in there.items())
    with duckdb.connect(config={"enable_external_access": False}) as con:
        con.register("found", table)
        done = con.sql(f"SELECT * REPLACE ({made}) FROM found").to_arrow_table()
    lost = {c: done[c].null_count - table[c].null_count for c in there}
    return done, {c: n for c, n in lost.items() if n}
