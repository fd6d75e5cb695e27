"""Exact counts over tables whose rows say the same twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.errors import DataError
from curate.recipes.recipe import parse


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A table of ten rows, each of them twice."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    rows = {
        "url": [f"http://a.example/{i % 10}.jpg" for i in range(20)],
        "caption": [f"text {i % 10}" for i in range(20)],
    }
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    return {"table": str(tmp_path / "t.parquet")}


def made(source: dict[str, Any], steps: list[Any], out: Path) -> Dataset:
    return build(parse({"name": "s", "source": source, "steps": steps}), out, overlay=True)[0].dataset


@pytest.mark.parametrize(("fraction", "rows"), [(0.5, 5), (0.8, 8), (1.0, 10)])
def test_a_share_is_of_the_rows_that_differ(
    twice: dict[str, Any], fraction: float, rows: int, tmp_path: Path
) -> None:
    assert len(made(twice, [{"sample": {"fraction": fraction}}], tmp_path / "s")) == rows


@pytest.mark.parametrize("allocation", ["simple", "equal", "proportional"])
def test_more_rows_than_differ_are_refused(twice: dict[str, Any], allocation: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="15 rows wanted of 20, of which 10 differ"):
        made(twice, [{"sample": {"number": 15, "allocation": allocation}}], tmp_path / "s")
    assert len(made(twice, [{"sample": {"number": 10, "allocation": allocation}}], tmp_path / "s")) == 10


def test_the_largest_mix_is_of_the_rows_that_differ(twice: dict[str, Any], tmp_path: Path) -> None:
    once = {"url": [f"http://b.example/{i}.jpg" for i in range(30)], "caption": ["x"] * 30}
    pq.write_table(pa.table(once), tmp_path / "b.parquet")
    source = {"union": {"parts": {"a": twice, "b": {"table": str(tmp_path / "b.parquet")}}}}
    mixed = made(source, [{"mix": {"shares": {"a": 0.5, "b": 0.5}}}], tmp_path / "s")
    assert len(mixed) == 20
    with pytest.raises(DataError, match="ask for fewer"):
        made(source, [{"mix": {"counts": {"a": 11, "b": 5}}}], tmp_path / "t")


def test_a_union_that_keeps_the_first_counts_what_it_keeps(twice: dict[str, Any], tmp_path: Path) -> None:
    source = {"union": {"parts": {"a": twice, "b": twice}, "duplicates": "first"}}
    dataset = made(source, [{"sample": {"fraction": 0.5}}], tmp_path / "s")
    assert [s.rows_out for s in dataset.info.ledger] == [10, 5]


def test_classes_that_a_table_leaves_without_rows_go(
    twice: dict[str, Any], pool: Path, tmp_path: Path
) -> None:
    source = {"union": {"parts": {"web": twice, "own": {"folder": str(pool)}}}}
    folder = made({"folder": str(pool)}, [], tmp_path / "folder")
    kept = folder.classes[-1]
    condition = f"label IS NULL OR label = {len(folder.classes) - 1}"
    for steps in ([{"where": condition}], [{"where": condition}, {"sample": {"fraction": 1.0}}]):
        dataset = made(source, steps, tmp_path / f"s{len(steps)}")
        assert [c.id for c in dataset.classes] == [kept.id]
        assert {r["label"] for r in dataset.table(["label"]).to_pylist()} == {None, 0}


def test_a_caption_that_is_computed_is_counted_whatever_its_case(
    twice: dict[str, Any], tmp_path: Path
) -> None:
    dataset = made(twice, [{"compute": {"columns": {"Caption": "upper(caption)"}}}], tmp_path / "s")
    assert dataset.info.ledger[-1].captions_changed == 10
