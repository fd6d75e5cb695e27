"""Recipes and datasets for the tests of `curate`."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from operation_examples import Example

from curate import ops
from curate.builds.build import build
from curate.datasets.dataset import INFO, MANIFEST, Dataset, DatasetInfo, file_sha256, open_dataset, render
from curate.recipes.recipe import Recipe, load
from curate.rows.manifest import CORE, digest
from curate.rows.relation import Rows, columns_of
from curate.rows.sql import text
from curate.sources._index_cache import class_list

# Tench, crane (the bird), dog, cat, car, crane (the machine): two share a name.
WNIDS = ("n01440764", "n02012849", "n02084071", "n02121620", "n02958343", "n03126707")


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write a recipe: `write_recipe({"steps": […]}, name="a")`, or its YAML as text; return the file."""

    def write(content: dict[str, Any] | str | bytes, name: str = "recipe") -> Path:
        path = tmp_path / f"{name}.yaml"
        if isinstance(content, dict):
            content = yaml.safe_dump({"name": name, **content}, sort_keys=False)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def recipe(write_recipe: Callable[..., Path], pool: Path) -> Callable[..., Recipe]:
    """Load a recipe over the pool: `recipe([{"per_class": 8}], name="a", expect={…})`."""

    def make(steps: list[Any], name: str = "set", **rest: Any) -> Recipe:
        content = {"source": {"folder": str(pool)}, "steps": steps, "samples_per_shard": 16, **rest}
        return load(write_recipe(content, name))

    return make


@pytest.fixture(scope="session")
def built_before() -> dict[str, Path]:
    """What `built` made already: what was asked for → an untouched copy."""
    return {}


@pytest.fixture
def built(
    recipe: Callable[..., Recipe],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    built_before: dict[str, Path],
) -> Callable[..., Dataset]:
    """Build a dataset over the pool: `built([{"per_class": 8}], name="a", overlay=True)`.

    What another test had built alike is copied, for most tests are not about the build: a copy takes a twentieth of
    its time. Copies lie as deep as the original, so that the relative paths in them lead to the pool.
    """

    def make(
        steps: list[Any], name: str = "set", *, out: Path | None = None, overlay: bool = True, **rest: Any
    ) -> Dataset:
        target, said = out or tmp_path / name, json.dumps([steps, name, overlay, rest])
        made, alone = recipe(steps, name, **rest), out is not None or ".csv" in said or "source" in rest
        if not alone and said in built_before and not target.exists():
            return open_dataset(shutil.copytree(built_before[said], target))
        [result] = build(made, target, overlay=overlay, workers=2)
        if not alone and said not in built_before:
            built_before[said] = shutil.copytree(target, tmp_path_factory.mktemp("built") / name)
        return result.dataset

    return make


@pytest.fixture
def built_from(write_recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., Dataset]:
    """Build a dataset from any source: `built_from({"dataset": path}, [step, …], name, overlay=True)`."""

    def make(
        source: dict[str, Any], steps: list[Any] | None = None, name: str = "derived", **how: Any
    ) -> Dataset:
        path = write_recipe({"source": source, "steps": steps or [], "samples_per_shard": 16}, name)
        [result] = build(load(path), tmp_path / name, **how)
        return result.dataset

    return make


@pytest.fixture
def hugging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The `datasets` library, with a cache of its own and without the network."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    return library


@pytest.fixture
def downloads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have img2dataset download in this process: to start its own takes seconds and tells no more of its results."""
    from curate.fetch import passes
    from curate.fetch.workers import download, process

    main = importlib.import_module("img2dataset.main")  # the package has a function of that name

    def serial(processes: int, downloader: Any, reader: Any, *_: object) -> None:
        assert all(good for good, _ in map(downloader, reader))

    def run(command: Sequence[str], *, look: Callable[[], None], **_: Any) -> None:
        download._fetcher.cache_clear()
        handler = signal.getsignal(signal.SIGINT)  # img2dataset sets its own
        with redirect_stdout(io.StringIO()):
            process.run(json.loads(Path(command[-1]).read_text()))
        signal.signal(signal.SIGINT, handler)
        look()

    for name in ("LoggerProcess", "Downloader"):
        monkeypatch.setattr(main, name, getattr(main, name))  # to be put back
    monkeypatch.setattr(main, "multiprocessing_distributor", serial)
    monkeypatch.setattr(passes, "supervise", run)


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """Return the sha256 of what a folder holds, file by file; `build.json` says when, so it is left out."""

    def read(folder: Path) -> dict[str, str]:
        files = (f for f in sorted(folder.rglob("*")) if f.is_file() and f.name != "build.json")
        return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()[:16] for f in files}

    return read


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """One DuckDB for many tests: to start one takes 30 ms, more than most of what they ask of it."""
    with duckdb.connect() as con:
        yield con


@pytest.fixture
def connection(engine: Any) -> Iterator[Any]:
    """A connection to a database of the test's own, in memory; temporary tables belong to a connection."""
    with engine.cursor() as con:
        con.execute("ATTACH ':memory:' AS own; USE own")
        yield con
    # When the connection is closed: what a test that fails leaves undone is undone with it.
    engine.execute("DETACH own; RESET threads")


@pytest.fixture
def source(apply: Callable[..., Rows], connection: Any) -> Callable[..., Rows]:
    """Make rows in memory, of six classes of which the last has half as many: `source(600, "WHERE …")`.

    An example of the laws may add columns to them, and have steps run first.
    """
    connection.execute(
        "CREATE MACRO source_rows(n) AS TABLE SELECT 'pool/' || printf('%07d', i) AS key, key || '.jpg' AS file, "
        "0::BIGINT AS offset, 1000 + i AS size, 'jpg' AS ext, (32 + i % 64)::INTEGER AS width, "
        "48::INTEGER AS height, (CASE WHEN i % 12 = 11 THEN 0 ELSE i % 6 END)::INTEGER AS label, "
        "NULL::VARCHAR AS caption, if(i % 7 = 0, 'val', 'train') AS split, md5(i::VARCHAR) AS extra, i "
        "FROM range(n) r(i)"
    )

    def make(
        count: int = 600, rest: str = "", *, planning: bool = False, example: Example | None = None
    ) -> Rows:
        more = dict(example.columns) if example else {}
        replaced = ", ".join(f"{more.pop(c)} AS {c}" for c in CORE if c in more)
        chosen = f"* EXCLUDE (i) REPLACE ({replaced})" if replaced else "* EXCLUDE (i)"
        added = "".join(f", {expression} AS {c}" for c, expression in more.items())
        connection.execute(
            f"CREATE OR REPLACE TABLE source AS SELECT {chosen}{added} FROM source_rows({count}) {rest}"
        )
        rows = Rows(connection, "source", columns_of(connection, "source"), class_list(WNIDS), planning)
        for name, arguments in example.before if example else ():
            rows = apply(name, rows, **arguments)
        return rows

    return make


@pytest.fixture
def listed(source: Callable[..., Rows]) -> Callable[[Sequence[str]], Rows]:
    """Make rows in memory, one of each of the classes given by wnid or name: `listed(wnids)`."""

    def make(names: Sequence[str]) -> Rows:
        rows = source(len(names))
        rows.con.execute("UPDATE source SET label = right(key, 7)::INTEGER")
        return replace(rows, known=class_list(names))

    return make


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of what the laws' examples name: `scores.csv`, of the keys of `source(600)`, and others."""
    folder = tmp_path_factory.mktemp("tables")
    lines = [f"pool/{i:07d},{i * 37 % 101 / 100},{i % 5 / 10}\n" for i in range(600)]
    (folder / "scores.csv").write_text("key,score,rate\n" + "".join(lines))
    texts = [f'{{"key": "pool/{i:07d}", "captions": ["", "one {i}", "two {i}"]}}\n' for i in range(0, 600, 3)]
    (folder / "texts.jsonl").write_text("".join(texts))
    (folder / "confusion.csv").write_text("true,given,weight\ndog,cat,3\ndog,dog,7\nn01440764,dog,1\n")
    (folder / "test-set").mkdir()
    columns = CORE | {"sha256": "VARCHAR"}
    with duckdb.connect() as con:
        values = {"key": "'t' || i", "sha256": "md5((i * 9)::VARCHAR)"}
        chosen = ", ".join(f'{values.get(c, "NULL")}::{kind} AS "{c}"' for c, kind in columns.items())
        file = text(str(folder / "test-set" / MANIFEST))
        con.execute(f"COPY (SELECT {chosen} FROM range(100) r(i)) TO {file} (FORMAT parquet)")
    told: dict[str, Any] = {
        "name": "test-set",
        "digest": digest("test-set"),
        "plan": "-",
        "rows": 100,
        "bytes": 0,
        "root": ".",
    }
    told |= {"columns": columns, "classes": [], "recipe": {}, "source": {}}
    info = DatasetInfo(**told, ledger=[], manifest_sha256=file_sha256(folder / "test-set" / MANIFEST))
    (folder / "test-set" / INFO).write_bytes(render(info))
    return folder


@pytest.fixture
def apply(tables: Path) -> Callable[..., Rows]:
    """Apply an operation as a recipe does: `apply("noise", rows, rate=0.2, seed=5)`."""

    def run(name: str, rows: Rows, /, **arguments: Any) -> Rows:
        operation = ops.find(name)
        given = {"seed": 5} if "seed" in operation.signature.names else {}
        bound = operation.signature.bind(arguments, where=name) | given | arguments
        for parameter in [*operation.signature.files, *operation.signature.datasets]:
            bound[parameter] = bound[parameter] and str(tables / bound[parameter])
        after = operation(rows, **bound)
        return replace(after, columns=columns_of(rows.con, after.name))

    return run


@pytest.fixture
def content() -> Callable[[Rows], list[dict[str, Any]]]:
    """Return rows in the order of their keys, each as a dictionary."""

    def read(rows: Rows) -> list[dict[str, Any]]:
        return rows.con.sql(f"FROM {rows} ORDER BY key").to_arrow_table().to_pylist()

    return read
