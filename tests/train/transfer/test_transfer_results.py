"""The file of results: whole or not at all, each cell once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from curate.errors import DataError, RecipeError
from train.transfer import results
from train.transfer.summary import summarize


def row(cell: str, value: float = 0.5, **others: Any) -> dict[str, Any]:
    """Return a row of results."""
    kinds = {pa.string(): "text", pa.float64(): 0.0, pa.bool_(): True}
    return {field.name: kinds.get(field.type, 1) for field in results.SCHEMA} | {
        "cell": cell,
        "value": value,
        **others,
    }


def test_rows_come_back_as_they_were_given(tmp_path: Path) -> None:
    out = tmp_path / "new" / "results.parquet"
    assert results.read(out).num_rows == 0
    results.append(out, [row("a", 0.1), row("a", 0.2)])
    results.append(out, [row("b", 0.3, images_per_class=None)])
    assert results.read(out)["value"].to_pylist() == [0.1, 0.2, 0.3]
    assert results.read(out)["images_per_class"].to_pylist() == [1, 1, None]
    assert results.rows_of_measurements(results.read(out), ["a"]).num_rows == 2


def test_cell_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    results.append(out, [row("a", 0.1)])
    results.append(out, [row("a", 0.9), row("b", 0.3)])
    assert results.read(out)["value"].to_pylist() == [0.1, 0.3]


def test_duckdb_reads_the_file(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    results.append(out, [row("a", 0.25, shots="full"), row("b", 0.75, shots="5")])
    found = duckdb.sql(f"SELECT shots, value FROM '{out}' WHERE headline ORDER BY value").fetchall()
    assert found == [("full", 0.25), ("5", 0.75)]


def test_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "results.parquet"
    results.append(out, [row("a")])
    before = out.read_bytes()

    def crash(*_: object) -> None:
        raise OSError("no more")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="no more"):
        results.append(out, [row("b")])
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_many_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    out = tmp_path / "results.parquet"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: results.append(out, [row(f"cell-{i}")]), range(40)))
    assert sorted(results.read(out)["cell"].to_pylist()) == sorted(f"cell-{i}" for i in range(40))


def test_file_that_holds_no_results_is_refused_and_kept(tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged.parquet", tmp_path / "other.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    pq.write_table(pa.table({"x": [1]}), other)
    for path, says in [(damaged, "cannot be read"), (other, "not results of this version")]:
        with pytest.raises(DataError, match=says):
            results.append(path, [row("a")])
    assert damaged.read_bytes() == b"PAR1 and no more"
    with pytest.raises(RecipeError, match="is a folder"):
        results.check_path(tmp_path)


def test_summary_is_the_mean_over_seeds_with_students_interval(tmp_path: Path) -> None:
    values = [0.50, 0.56, 0.47]
    rows = [row(f"a{i}", v, seed=i, shots="5") for i, v in enumerate(values)] + [row("b", 0.9, shots="full")]
    table = summarize(pa.Table.from_pylist(rows, schema=results.SCHEMA))
    five, full = sorted(table.to_pylist(), key=lambda r: r["shots"])
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (five["seeds"], full["seeds"]) == (3, 1)
    assert five["mean"] == pytest.approx(np.mean(values))
    assert (five["ci_low"], five["ci_high"]) == pytest.approx((low, high))
    assert (full["mean"], full["ci_low"]) == (0.9, None)


def test_summary_keeps_protocols_settings_and_metrics_apart() -> None:
    rows = [
        row("a", protocol="linear"),
        row("b", protocol="finetune"),
        row("c", config="other"),
        row("d", metric="m"),
    ]
    assert summarize(pa.Table.from_pylist(rows, schema=results.SCHEMA)).num_rows == 4
