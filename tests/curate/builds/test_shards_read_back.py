"""Shards that a build wrote, and shards whose keys repeat, as a source: the rows come back as they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from handmade_tars import write_tar

from curate.datasets.dataset import Dataset
from curate.errors import DataError

Built = Callable[..., Dataset]
Jpeg = Callable[..., bytes]

COLUMNS = {
    "moment": "TIMESTAMP '2020-01-02 03:04:05.678' + INTERVAL (width) SECOND",
    "day": "DATE '2020-01-02'",
    "ratio": "if(len(key) % 2 = 0, 0.1::DOUBLE + 0.2, 1e300)",
    "whole": "3.0::DOUBLE",
    "single": "0.1::FLOAT",
    "big": "9007199254740993",
    "largest": "18446744073709551615::UBIGINT",
    "small": "5::TINYINT",
    "exact": "1.250::DECIMAL(18, 3)",
    "yes": "width > 0",
    "numbers": "[1, NULL, width]",
    "words": "['a', NULL, key]",
    "box": "{'x': 0.5::FLOAT, 'names': ['ü']}",
    "captions": "['first ' || key, 'second, with \"ü\"']",
    "like_a_number": "'007'",
    "some": "if(key < 'n02', 'here', NULL)",
    "none_here": "if(false, 1, NULL)",
}


def rows(made: Dataset) -> list[dict[str, Any]]:
    left = {"file", "offset"}
    table = made.table([c for c in made.info.columns if c not in left])
    return sorted(table.to_pylist(), key=lambda row: row["key"])


@pytest.fixture
def first(built: Callable[..., Dataset]) -> Dataset:
    return built([{"compute": {"columns": COLUMNS}}, {"noise": {"rate": 0.25}}], overlay=False)


def test_shards_of_a_dataset_come_back_with_equal_types_and_rows(built_from: Built, first: Dataset) -> None:
    again = built_from({"shards": str(first.path / "shards")}, overlay=True)
    gone = {"none_here"}  # NULL in every row: no `.json` says it
    assert {c: t for c, t in first.info.columns.items() if c not in gone} == again.info.columns
    expected = [{c: v for c, v in row.items() if c not in gone} for row in rows(first)]
    assert len(expected) == 60
    assert rows(again) == expected
    assert again.info.source["left_out"] == {}


def test_shards_that_were_moved_keep_what_json_can_tell(
    built_from: Built, first: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(first.path / "shards", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("*.parquet"))
    again = built_from({"shards": str(tmp_path / "elsewhere")}, overlay=True)
    kinds = {"captions": "VARCHAR[]", "big": "BIGINT", "ratio": "DOUBLE", "whole": "DOUBLE", "yes": "BOOLEAN",
             "moment": "VARCHAR", "numbers": "VARCHAR", "like_a_number": "VARCHAR"}  # fmt: skip
    assert {c: again.info.columns[c] for c in kinds} == kinds
    same = ["key", "label", "caption", "captions", "clean_label", "big", "ratio", "yes", "like_a_number"]
    picked = [[{c: row[c] for c in same} for row in rows(made)] for made in (first, again)]
    assert picked[0] == picked[1]


def test_types_of_a_dataset_are_no_sql(built_from: Built, first: Dataset) -> None:
    from curate.datasets.dataset import render

    columns = first.info.columns | {"big": "BIGINT) FROM read_text('/etc/hostname'); --", "small": "BLOB)"}
    (first.path / "dataset.json").write_bytes(render(first.info.model_copy(update={"columns": columns})))
    again = built_from({"shards": str(first.path / "shards")}, overlay=True)
    assert again.info.columns["big"] == "BIGINT"
    assert {r["big"] for r in rows(again)} == {9007199254740993}


def test_value_that_is_not_of_its_columns_type_is_counted(
    built_from: Built, first: Dataset, jpeg: Jpeg
) -> None:
    write_tar(first.path / "shards/000000.tar", [("x.jpg", jpeg(0)), ("x.json", b'{"moment": "soon"}')])
    again = built_from({"shards": str(first.path / "shards")}, overlay=True)
    assert again.info.source["left_out"] == {".json whose moment is no TIMESTAMP": 1}


@pytest.fixture
def repeating(tmp_path: Path, jpeg: Jpeg) -> str:
    """Three tars that each begin at 00000, in two folders."""
    for number, tar in enumerate(("a/0.tar", "a/1.tar", "b/0.tar")):
        members = [
            m
            for i in range(3)
            for m in ((f"{i:05d}.jpg", jpeg(3 * number + i)), (f"{i:05d}.txt", f"{tar} {i}".encode()))
        ]
        write_tar(tmp_path / "pool" / tar, members)
    return str(tmp_path / "pool")


def test_keys_that_repeat_are_refused_and_what_the_hint_names_works(
    built_from: Built, repeating: str, jpeg: Jpeg
) -> None:
    with pytest.raises(DataError) as caught:
        built_from({"shards": repeating}, overlay=True)
    assert "3 keys stand for two samples or more; '00000' is a/0.tar and a/1.tar" in caught.value.message
    assert "`duplicates: prefix`" in (caught.value.hint or "")
    assert "`duplicates: first`" in (caught.value.hint or "")
    made = built_from({"shards": repeating, "duplicates": "prefix"}, overlay=True)
    captions = {r["key"]: r["caption"] for r in rows(made)}
    assert captions == {f"{t}/{i:05d}": f"{t}.tar {i}" for t in ("a/0", "a/1", "b/0") for i in range(3)}
    made = built_from({"shards": repeating, "duplicates": "first"}, overlay=True)
    assert {r["key"]: r["caption"] for r in rows(made)} == {f"{i:05d}": f"a/0.tar {i}" for i in range(3)}
    assert made.info.source["left_out"] == {"samples whose key stood before": 6}


def test_key_that_stands_twice_in_one_tar_is_not_cured_by_a_prefix(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    tar = write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(0)), ("b.jpg", jpeg(1)), ("a.jpg", jpeg(2))])
    for duplicates in ("error", "prefix"):
        with pytest.raises(DataError) as caught:
            built_from({"shards": str(tar), "duplicates": duplicates}, overlay=True)
        assert "twice in 0.tar" in caught.value.message
        assert "prefix" not in (caught.value.hint or "")
    made = built_from({"shards": str(tar), "duplicates": "first"}, overlay=True)
    assert [(r["key"], r["size"]) for r in rows(made)] == [("a", len(jpeg(0))), ("b", len(jpeg(1)))]


def test_recipe_may_say_what_becomes_of_keys_that_repeat(
    repeating: str, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"name": "c", "source": {"shards": repeating, "duplicates": "prefix"}}))
    assert run_curate("build", recipe, "--out", tmp_path / "out", "--overlay").exit_code == 0
    found = duckdb.sql(f"SELECT count(DISTINCT key) FROM '{tmp_path}/out/manifest.parquet'").fetchall()
    assert found == [(9,)]


def test_columns_beyond_the_first_samples_are_in_a_union_too(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = [m for i in range(120) for m in ((f"{i:03d}.jpg", jpeg(1)), (f"{i:03d}.json", b'{"a": 1}'))]
    members[-1] = ("119.json", b'{"a": 0.5, "late": "here"}')
    late = write_tar(tmp_path / "late/0.tar", members)
    other = write_tar(tmp_path / "other/0.tar", [("x.jpg", jpeg(2))])
    parts = {"one": {"shards": str(late)}, "two": {"shards": str(other)}}
    made = built_from({"union": {"parts": parts}}, overlay=True)
    assert made.info.columns["a"] == "DOUBLE"
    assert {r["late"] for r in rows(made)} == {"here", None}


def test_columns_of_a_tar_whose_members_stand_apart_are_known_while_planning(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    count = 150
    members = [(f"{i:03d}.jpg", jpeg(1)) for i in range(count)]
    members += [(f"{i:03d}.json", b'{"score": %d}' % i) for i in range(count)]
    tar = write_tar(tmp_path / "0.tar", members)
    made = built_from({"shards": str(tar)}, [{"where": "score < 10"}], overlay=True)
    assert len(made) == 10


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "-1"], ["-1", "9", "10"]),
        (["4294967296", "5"], ["5", "4294967296"]),
        (["10", "9", "dog"], ["9", "10", "dog"]),
        (["1.5", "0.5", "1e30"], ["0.5", "1.5", "1e30"]),
    ],
)
def test_labels_that_are_numbers_follow_their_value(
    built_from: Built, tmp_path: Path, jpeg: Jpeg, labels: list[str], classes: list[str]
) -> None:
    members = [m for i, w in enumerate(labels) for m in ((f"{i}.jpg", jpeg(i)), (f"{i}.cls", w.encode()))]
    made = built_from({"shards": str(write_tar(tmp_path / "0.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == classes
    assert [made.classes[r["label"]].name for r in rows(made)] == labels


def test_whole_numbers_that_pandas_wrote_as_floats_are_labels(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    members = [("a.jpg", jpeg(0)), ("a.json", b'{"label": 3.0}'), ("b.jpg", jpeg(1)), ("b.cls", b"3")]
    made = built_from({"shards": str(write_tar(tmp_path / "0.tar", members))}, overlay=True)
    assert [c.name for c in made.classes] == ["3"]
    assert [r["label"] for r in rows(made)] == [0, 0]


def test_column_whose_values_differ_in_kind_is_text_and_noted(
    built_from: Built, tmp_path: Path, jpeg: Jpeg
) -> None:
    values = [b"1", b"[1]", b'"a"', b"9007199254740993", b"0.5"]
    members = [
        m for i, v in enumerate(values) for m in ((f"{i}.jpg", jpeg(i)), (f"{i}.json", b'{"x": %s}' % v))
    ]
    made = built_from({"shards": str(write_tar(tmp_path / "0.tar", members))}, overlay=True)
    assert [r["x"] for r in rows(made)] == ["1", "[1]", "a", "9007199254740993", "0.5"]
    said = "column 'x' is text: it has lists or objects, numbers and texts"
    assert said in made.info.ledger[0].notes
