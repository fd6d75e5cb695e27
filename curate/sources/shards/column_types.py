"""Types of columns that JSON does not have, such as timestamps: a dataset of ours declares those of its shards."""

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


def declared_types(tars: Iterable[str]) -> dict[str, str]:
    """Return column → DuckDB type as declared by the datasets that these tars are shards of, if all agree.

    Texts are left out, since JSON holds them as they are.
    """
    common: dict[str, str] | None = None
    for folder, files in _by_folder(tars).items():
        types = _types(folder, files)
        common = types if common is None else {c: t for c, t in common.items() if types.get(c) == t}
    return common or {}


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
    """Return a type as DuckDB writes it, which is safe in SQL; an empty text if it is no type."""
    try:
        return str(duckdb.sqltype(kind))
    except duckdb.Error:
        return ""


def cast(table: pa.Table, types: Mapping[str, str]) -> tuple[pa.Table, dict[str, int]]:
    """Cast the JSON columns of a table; return it, and the number of values of each column that did not fit."""
    present = {c: t for c, t in types.items() if c in table.column_names}
    if not present:
        return table, {}
    made = ", ".join(f"TRY_CAST({quoted(c)}::JSON AS {t}) AS {quoted(c)}" for c, t in present.items())
    with duckdb.connect(config={"enable_external_access": False}) as con:
        con.register("side_fields", table)
        done = con.sql(f"SELECT * REPLACE ({made}) FROM side_fields").to_arrow_table()
    lost = {c: done[c].null_count - table[c].null_count for c in present}
    return done, {c: n for c, n in lost.items() if n}
