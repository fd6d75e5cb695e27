"""Datasets as a stranger may send them: changed at will, with every digest and the seal made right again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.datasets.dataset import INFO, MANIFEST, SHARD_INDEX, DatasetInfo, file_sha256, render, set_digest
from curate.rows.manifest import Class as ClassOf
from curate.rows.manifest import content_digest, rows_digest
from curate.rows.sql import parquet

Change = Callable[[list[dict[str, Any]]], None]


def reseal(folder: Path, rows: Change | None = None, index: Change | None = None, **said: Any) -> Path:
    """Change a dataset's rows, its index and what `dataset.json` says; return its folder.

    Args:
        rows: changes the rows of the manifest in place.
        index: changes those of `shards/index.parquet`.
        said: fields of `dataset.json`.
    """
    info = DatasetInfo.model_validate_json((folder / INFO).read_text()).model_copy(update=said)
    for change, name in ((rows, MANIFEST), (index, SHARD_INDEX)):
        if change:
            table = pq.read_table(folder / name)
            found = table.to_pylist()
            change(found)
            schema = pa.schema([field.with_nullable(True) for field in table.schema])
            pq.write_table(pa.Table.from_pylist(found, schema), folder / name)
    with duckdb.connect() as con:
        there = parquet(folder / MANIFEST, file_row_number=True)
        named = rows_digest(con, there, "file_row_number", list(info.columns))
    classes = [ClassOf(c.name, c.wnid, tuple(c.fine)) for c in info.classes]
    update: dict[str, Any] = {
        "digest": set_digest(content_digest(named, classes), info.recipe),
        "manifest_sha256": file_sha256(folder / MANIFEST),
        "rows": pq.read_metadata(folder / MANIFEST).num_rows,
    }
    if info.shards is not None:
        update["index_sha256"] = file_sha256(folder / SHARD_INDEX)
    (folder / INFO).write_bytes(render(info.model_copy(update=update | said)))
    return folder


def setting(column: str, value: Any, number: int = 0) -> Change:
    """Return the change that sets a value of one row."""

    def change(rows: list[dict[str, Any]]) -> None:
        rows[number][column] = value

    return change
