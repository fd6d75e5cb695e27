"""DuckDB over everything below a folder: datasets, their rows, runs, results, and WordNet."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curate.datasets.dataset import INFO, OUTCOMES, Dataset, open_dataset
from curate.errors import CurateError, RecipeError, first_line, printable
from curate.rows.relation import columns_of
from curate.rows.sql import parquet, plain, quoted, text
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
RESULTS = dict.fromkeys(("run", "task", "shots", "protocol", "metric"), "VARCHAR") | {"value": "a number"}
RUNS = (
    "run VARCHAR, path VARCHAR, method VARCHAR, dataset VARCHAR, dataset_digest VARCHAR, seed BIGINT, "
    "seconds DOUBLE, metrics JSON, info JSON"
)


Say = Callable[[str], None]


def passed_over(line: str) -> None:
    """Say on stderr that a file is passed over, and why."""
    print(printable(f"note: {line}"), file=sys.stderr)


def connect(root: str | Path = ".", *, say: Say = passed_over) -> duckdb.DuckDBPyConnection:
    """Open a connection that knows what lies below a folder.

    Views and tables: one a dataset, by its name (its rows, with `class` for the label's name); `datasets`,
    `steps` (their ledgers), `classes`; `outcomes` (what became of each row that pools asked for); `runs` and `metrics`
    (one row a log line); `results`; `wordnet`. A dataset whose name is taken, by one of these or by another dataset,
    is called by its folder's path, with a number where that is taken too.

    Args:
        root: the folder.
        say: is told of each file that cannot be read, which is passed over.

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
    _keep_limits(con)
    _datasets(con, root, found[INFO], say)
    _runs(con, found["run.json"], say)
    _results(con, found["results.parquet"], say)
    create_views(con)
    return con


def _keep_limits(con: Any) -> None:
    """Have LIMIT hold over an outer join whose other side is empty, where this DuckDB loses it."""
    con.execute("CREATE TEMP TABLE ones AS SELECT 1 AS one")
    lost = "FROM range(3) r(i) LEFT JOIN ones ON i = one AND one = 2 LIMIT 1"  # its right side is known to be empty
    if len(con.execute(lost).fetchall()) != 1:
        con.execute("SET disabled_optimizers = 'statistics_propagation'")
    con.execute("DROP TABLE ones")


def query(sql: str, root: str | Path = ".", *, say: Say = passed_over) -> pa.Table:
    """Run SQL over what lies below a folder; see `connect`.

    Raises:
        RecipeError: the SQL is wrong; the hint lists what there is.
    """
    with connect(root, say=say) as con:
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


def _datasets(con: Any, root: Path, folders: list[Path], say: Say) -> None:
    sets: list[tuple[str, Dataset]] = []
    for folder in folders:
        try:
            dataset = open_dataset(folder)
        except CurateError as error:
            say(error.message)
            continue
        taken = {name.lower() for name, _ in sets} | OURS  # SQL's names have no case
        place = str(folder.relative_to(root))
        names = itertools.chain((dataset.name, place), (f"{place} ({n})" for n in itertools.count(2)))
        sets.append((next(name for name in names if name.lower() not in taken), dataset))
    _table(con, "datasets", DATASETS, [_dataset(name, dataset) for name, dataset in sets])
    _table(con, "steps", STEPS, [row for name, dataset in sets for row in _steps(name, dataset)])
    classes = [(n, i, c.name, c.wnid, list(c.fine)) for n, d in sets for i, c in enumerate(d.classes)]
    _table(con, "classes", CLASSES, classes)
    _outcomes(con, sets, say)
    for name, dataset in sets:
        # No join: DuckDB 2.0.1 loses a LIMIT over a left join whose right side is empty, as it is without classes.
        named = f"(SELECT list(name ORDER BY label) FROM classes WHERE dataset = {text(name)})"
        with _passing_over(dataset.path, say):
            con.execute(
                f"CREATE VIEW {quoted(name)} AS SELECT r.*, if(r.label >= 0, {named}[r.label + 1], NULL) AS class "
                f"FROM {parquet(dataset.manifest)} r"
            )


@contextmanager
def _passing_over(file: object, say: Say) -> Iterator[None]:
    """Say of a file, or of what lies in a folder, that cannot be read why."""
    try:
        yield
    except CurateError as error:
        say(error.message)
    except duckdb.Error as error:
        say(f"{file}: {first_line(error)}")


def _outcomes(con: Any, sets: list[tuple[str, Dataset]], say: Say) -> None:
    files = [(name, data.path / OUTCOMES) for name, data in sets if (data.path / OUTCOMES).exists()]
    sound = _sound(con, [file for _, file in files], say)
    views = [
        f"SELECT {text(name)} AS dataset, * FROM {parquet(file)}" for name, file in files if file in sound
    ]
    if views:
        con.execute(f"CREATE VIEW outcomes AS {' UNION ALL BY NAME '.join(views)}")


def _sound(con: Any, files: Sequence[Any], say: Say) -> list[Any]:
    """Return the Parquet files that can be read."""
    sound = []
    for file in files:
        with _passing_over(file, say):
            con.execute(f"DESCRIBE FROM {parquet(file)}")
            sound.append(file)
    return sound


def _dataset(name: str, data: Dataset) -> tuple[Any, ...]:
    shards = None if data.info.shards is None else len(data.info.shards)
    recipe = json.dumps(data.info.recipe)
    return name, str(data.path), data.digest, len(data), len(data.classes), data.info.bytes, shards, recipe


def _steps(name: str, data: Dataset) -> Iterator[tuple[Any, ...]]:
    for number, step in enumerate(data.info.ledger):
        step_columns = (name, number, step.step, json.dumps(step.arguments))
        counted = (step.rows_in, step.rows_out, step.classes_in, step.classes_out)
        yield *step_columns, *counted, step.labels_changed, step.captions_changed


def _runs(con: Any, folders: list[Path], say: Say) -> None:
    rows = []
    for folder in folders:
        try:
            info = json.loads((folder / "run.json").read_text())
            rows.append(_run(folder, info))
        except (OSError, ValueError, RecursionError) as error:
            say(f"{folder / 'run.json'}: {error}")
    _table(con, "runs", RUNS, rows)
    logs = [log for f in folders if (log := f / "metrics.jsonl").exists()]
    if sound := [log for log in logs if _is_log(con, log, say)]:
        con.execute(f"CREATE VIEW metrics AS SELECT * FROM {_log(*sound)}")


def _run(folder: Path, info: Any) -> tuple[Any, ...]:
    """Return a run's row; what is no value of its column's type is refused.

    Raises:
        ValueError: the document is no run's.
    """
    data = (info.get("dataset") or {}) if isinstance(info, dict) else None
    if not isinstance(data, dict):
        raise ValueError("not the record of a run")
    texts = (info.get("name"), info.get("method"), data.get("name"), data.get("digest"))
    numbers = (info.get("seed"), info.get("seconds"))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError("its names are not all texts")
    if not all(one is None or (isinstance(one, int | float) and abs(one) < 2**63) for one in numbers):
        raise ValueError("its seed or seconds are no numbers")
    name, *rest = texts
    return name, str(folder), *rest, *numbers, _json(info.get("metrics")), _json(info)


def _json(value: Any) -> str:
    """Return JSON that DuckDB can read: NaN and infinity, which Python writes and JSON has not, are null."""
    return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_log(con: Any, log: Path, say: Say) -> bool:
    """Whether a file is lines of JSON objects; all of it is looked at, as a query would."""
    try:
        kinds = con.execute(f"SELECT count(*) FROM {_log(log)}").fetchall() and columns_of(
            con, f"(FROM {_log(log)})"
        )
    except duckdb.Error as error:
        say(f"{log}: {first_line(error)}")
        return False
    if set(kinds) == {"json", "filename"}:  # DuckDB's word for lines that are no objects
        say(f"{log}: not lines of JSON objects")
        return False
    return True


def _log(*logs: Path) -> str:
    files = ", ".join(text(plain(log)) for log in logs)
    return (
        f"read_json([{files}], hive_partitioning = false, format = 'newline_delimited', union_by_name = true, "
        "filename = true, sample_size = -1)"
    )


def _results(con: Any, folders: list[Path], say: Say) -> None:
    """Show all files of results as one view; one that has other columns, or other types, is passed over."""
    kinds = dict(RESULTS)
    files = []
    for file in _sound(con, [f / "results.parquet" for f in folders], say):
        found = {name: _family(kind) for name, kind in columns_of(con, f"(FROM {parquet(file)})").items()}
        wrong = [f"no column {name!r}" for name in RESULTS if name not in found]
        wrong += [
            f"column {name!r} is {kind}, not {kinds[name]}"
            for name, kind in found.items()
            if kinds.get(name, kind) != kind
        ]
        if wrong:
            say(f"{file}: not results as the others are ({wrong[0]})")
            continue
        kinds |= found
        files.append(file)
    if files:
        con.execute(f"CREATE VIEW results AS SELECT * FROM {parquet(*files, union_by_name=True)}")


def _family(kind: str) -> str:
    """Return what a type can be read with: any number with another, texts with texts, all else with its like."""
    return (
        "a number" if re.match(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?$|FLOAT$|DOUBLE$|DECIMAL", kind) else kind
    )


def _table(con: Any, name: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    con.execute(f"CREATE TABLE {name} ({columns})")
    if rows:
        # As whole columns: row by row, a hundred sets of a thousand classes would take a minute.
        casts = ", ".join(f"unnest(?::{column.split()[1]}[])" for column in columns.split(", "))
        values = [list(column) for column in zip(*rows, strict=True)]
        con.execute(f"INSERT INTO {name} SELECT {casts}", values)
