"""DuckDB over everything below a folder: datasets, their rows, runs, results, and WordNet."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curate.datasets import INFO, Dataset, open_dataset
from curate.errors import CurateError, DataError, RecipeError
from curate.fetch.pools import OUTCOMES
from curate.manifests import parquet, plain, quoted, text
from curate.wordnet import create_views

MAX_DEPTH = 6
OURS = frozenset({"datasets", "steps", "classes", "outcomes", "runs", "metrics", "results", "wordnet"})
DATASETS = (
    "name VARCHAR, path VARCHAR, digest VARCHAR, rows BIGINT, classes INTEGER, bytes BIGINT, shards INTEGER, "
    "recipe JSON"
)
STEPS = (
    "dataset VARCHAR, number INTEGER, step VARCHAR, arguments JSON, rows_in BIGINT, rows_out BIGINT, "
    "classes_in INTEGER, classes_out INTEGER, labels_changed BIGINT, captions_changed BIGINT"
)
CLASSES = "dataset VARCHAR, label INTEGER, name VARCHAR, wnid VARCHAR, fine VARCHAR[]"
RUNS = (
    "run VARCHAR, path VARCHAR, method VARCHAR, dataset VARCHAR, dataset_digest VARCHAR, seed BIGINT, "
    "seconds DOUBLE, metrics JSON, info JSON"
)


def connect(root: str | Path = ".") -> duckdb.DuckDBPyConnection:
    """Open a connection that knows what lies below a folder.

    Views and tables: one a dataset, by its name (its rows, with `class` for the label's name); `datasets`,
    `steps` (their ledgers), `classes`; `outcomes` (what became of each row that pools asked for); `runs` and `metrics`
    (one row a log line); `results`; `wordnet`. A dataset whose name is taken, by one of these or by another dataset,
    is called by its folder's path, with a number where that is taken too.

    Raises:
        RecipeError: `root` is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecipeError(f"{root}: no such folder", hint="--root names the folder to look below")
    found: dict[str, list[Path]] = {INFO: [], "run.json": [], "results.parquet": []}
    for folder, name in _walk(root):
        found[name].append(Path(folder))
    con = duckdb.connect()
    _datasets(con, root, found[INFO])
    _runs(con, found["run.json"])
    _results(con, found["results.parquet"])
    create_views(con)
    return con


def query(sql: str, root: str | Path = ".") -> pa.Table:
    """Run SQL over what lies below a folder; see `connect`.

    Raises:
        RecipeError: the SQL is wrong; the hint lists what there is.
    """
    with connect(root) as con:
        try:
            answer = con.sql(sql)
            if answer is None:
                return pa.table({})
            names = answer.columns  # two may have one name, which a row as a dictionary could not hold
            distinct = [f"{n}:{i}" if n in names[:i] else n for i, n in enumerate(names)]
            return answer.to_arrow_table().rename_columns(distinct)
        except duckdb.Error as error:
            tables = [
                t[0]
                for t in con.execute("SELECT table_name FROM information_schema.tables ORDER BY 1").fetchall()
            ]
            message = str(error).split("\n\n")[0].strip()
            raise RecipeError(
                message, hint=f"there are {', '.join(tables)}; `DESCRIBE NAME` shows columns"
            ) from None


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Find our marks; what is inside a dataset or hidden is not looked into."""
    base = str(root).rstrip("/").count("/")
    for folder, folders, files in os.walk(root, followlinks=True):
        marks = [m for m in (INFO, "run.json", "results.parquet") if m in files]
        yield from ((folder, mark) for mark in marks)
        deep = folder.count("/") - base >= MAX_DEPTH
        folders[:] = [] if deep or INFO in marks else sorted(f for f in folders if not f.startswith("."))


def _datasets(con: Any, root: Path, folders: list[Path]) -> None:
    sets: list[tuple[str, Dataset]] = []
    for folder in folders:
        try:
            dataset = open_dataset(folder)
        except CurateError:
            continue  # `verify` says what is wrong with it; here it is only not there
        taken = {name.lower() for name, _ in sets} | OURS  # SQL's names have no case
        place = str(folder.relative_to(root))
        names = itertools.chain((dataset.name, place), (f"{place} ({n})" for n in itertools.count(2)))
        sets.append((next(name for name in names if name.lower() not in taken), dataset))
    _table(con, "datasets", DATASETS, [_dataset(name, dataset) for name, dataset in sets])
    _table(con, "steps", STEPS, [row for name, dataset in sets for row in _steps(name, dataset)])
    classes = [(n, i, c.name, c.wnid, list(c.fine)) for n, d in sets for i, c in enumerate(d.classes)]
    _table(con, "classes", CLASSES, classes)
    _outcomes(con, sets)
    for name, dataset in sets:
        with suppress(duckdb.Error, DataError):  # a damaged manifest is for `verify` too
            con.execute(
                f"CREATE VIEW {quoted(name)} AS SELECT r.*, c.name AS class "
                f"FROM {parquet(dataset.manifest)} r "
                f"LEFT JOIN classes c ON c.dataset = {text(name)} AND c.label = r.label"
            )


def _outcomes(con: Any, sets: list[tuple[str, Dataset]]) -> None:
    told = [
        f"SELECT {text(name)} AS dataset, * FROM {parquet(data.path / OUTCOMES)}"
        for name, data in sets
        if (data.path / OUTCOMES).exists()
    ]
    if told:
        with suppress(duckdb.Error):
            con.execute(f"CREATE VIEW outcomes AS {' UNION ALL BY NAME '.join(told)}")


def _dataset(name: str, data: Dataset) -> tuple[Any, ...]:
    shards = None if data.info.shards is None else len(data.info.shards)
    recipe = json.dumps(data.info.recipe)
    return name, str(data.path), data.digest, len(data), len(data.classes), data.info.bytes, shards, recipe


def _steps(name: str, data: Dataset) -> Iterator[tuple[Any, ...]]:
    for number, step in enumerate(data.info.ledger):
        told = (name, number, step.step, json.dumps(step.arguments))
        counted = (step.rows_in, step.rows_out, step.classes_in, step.classes_out)
        yield *told, *counted, step.labels_changed, step.captions_changed


def _runs(con: Any, folders: list[Path]) -> None:
    rows = []
    for folder in folders:
        try:
            info = json.loads((folder / "run.json").read_text())
        except (OSError, ValueError):
            continue
        data = info.get("dataset") or {}
        told = (info.get("name"), str(folder), info.get("method"), data.get("name"), data.get("digest"))
        metrics = json.dumps(info.get("metrics"))
        rows.append((*told, info.get("seed"), info.get("seconds"), metrics, json.dumps(info)))
    _table(con, "runs", RUNS, rows)
    logs = [str(f / "metrics.jsonl") for f in folders if (f / "metrics.jsonl").exists()]
    if logs:
        con.execute(
            f"CREATE VIEW metrics AS SELECT * FROM read_json([{', '.join(text(plain(log)) for log in logs)}], "
            "hive_partitioning = false, format = 'newline_delimited', union_by_name = true, filename = true)"
        )


def _results(con: Any, folders: list[Path]) -> None:
    if folders:
        files = parquet(*(f / "results.parquet" for f in folders), union_by_name=True)
        con.execute(f"CREATE VIEW results AS SELECT * FROM {files}")


def _table(con: Any, name: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    con.execute(f"CREATE TABLE {name} ({columns})")
    if rows:
        # As whole columns: row by row, a hundred sets of a thousand classes would take a minute.
        casts = ", ".join(f"unnest(?::{column.split()[1]}[])" for column in columns.split(", "))
        values = [list(column) for column in zip(*rows, strict=True)]
        con.execute(f"INSERT INTO {name} SELECT {casts}", values)
