"""SQL over everything below a folder, and what lies between two datasets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.datasets.diffs import chain, diff
from curate.datasets.queries import query
from curate.recipes.recipe import Recipe

Built = Callable[..., Dataset]
MakeRecipe = Callable[..., Recipe]


def test_dataset_is_a_table_by_its_name(built: Built, tmp_path: Path) -> None:
    built([{"noise": {"rate": 0.2}}], "noisy-1.0")
    answer = query(
        'SELECT count(*) AS n, avg((label <> clean_label)::INT) AS rate FROM "noisy-1.0"', tmp_path
    )
    assert answer.to_pylist() == [{"n": 60, "rate": 0.2}]
    classes = query(
        'SELECT DISTINCT class, wnid FROM "noisy-1.0" WHERE label = clean_label AND label = 2', tmp_path
    )
    assert classes.to_pylist() == [{"class": "dog", "wnid": "n02084071"}]


def test_datasets_steps_and_classes_are_tables(built: Built, tmp_path: Path) -> None:
    made = built(
        [{"per_class": 5}, {"relabel": {"map": {"dog": "pet", "cat": "pet"}, "others": "drop"}}], "a"
    )
    told = query(
        "SELECT name, digest, rows, classes, shards, recipe ->> '$.seed' AS seed FROM datasets", tmp_path
    )
    assert told.to_pylist() == [
        {"name": "a", "digest": made.digest, "rows": 10, "classes": 1, "shards": None, "seed": None}
    ]
    steps = query("SELECT step, rows_in, rows_out FROM steps WHERE dataset = 'a' ORDER BY number", tmp_path)
    assert [tuple(row.values()) for row in steps.to_pylist()] == [
        ("source", 60, 60), ("per_class", 60, 30), ("relabel", 30, 10)]  # fmt: skip
    classes = query("SELECT label, name, wnid, fine FROM classes", tmp_path).to_pylist()
    assert classes == [{"label": 0, "name": "pet", "wnid": None, "fine": ["n02084071", "n02121620"]}]


def test_describe_and_wordnet_work(built: Built, tmp_path: Path) -> None:
    built([], "a")
    columns = {row["column_name"]: row["column_type"] for row in query("DESCRIBE a", tmp_path).to_pylist()}
    assert columns["label"] == "INTEGER"
    assert columns["class"] == "VARCHAR"
    names = query("SELECT wn_name(wnid) AS name FROM a WHERE label = 3 LIMIT 1", tmp_path)
    assert names.to_pylist() == [{"name": "cat"}]


def test_rows_of_shards_are_those_of_the_manifest(built: Built, tmp_path: Path) -> None:
    built([], "a", overlay=False)
    assert query("SELECT count(DISTINCT file) AS n FROM a", tmp_path).to_pylist() == [{"n": 60}]


@pytest.mark.parametrize("name", ["datasets", "classes", "Steps", "runs", "wordnet"])
def test_dataset_called_like_a_table_of_ours_gets_another_name(
    built: Built, tmp_path: Path, name: str
) -> None:
    built([{"sample": 7}], name, out=tmp_path / "sets" / "one")
    names = query("SELECT name FROM datasets", tmp_path).to_pylist()
    assert names == [{"name": "sets/one"}]
    assert query('SELECT count(*) AS n FROM "sets/one"', tmp_path).to_pylist() == [{"n": 7}]


def test_datasets_of_one_name_are_told_apart(built: Built, tmp_path: Path) -> None:
    for number, name in enumerate(["same", "same", "Same"], start=1):
        built([{"sample": number}], name, out=tmp_path / "sets" / str(number))
    names = [row["name"] for row in query("SELECT name FROM datasets", tmp_path).to_pylist()]
    assert sorted(names) == ["same", "sets/2", "sets/3"]
    for number, name in ((1, "same"), (2, "sets/2"), (3, "sets/3")):
        assert query(f'SELECT count(*) AS n FROM "{name}"', tmp_path).to_pylist() == [{"n": number}]


@pytest.mark.parametrize("damage", ["dataset.json", "manifest.parquet"])
def test_damaged_dataset_does_not_stop_the_others(built: Built, tmp_path: Path, damage: str) -> None:
    built([], "sound")
    (built([], "hurt").path / damage).write_bytes(b"{")
    assert query("SELECT count(*) AS n FROM sound", tmp_path).to_pylist() == [{"n": 60}]


def test_columns_of_one_name_are_both_shown(
    built: Built, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    built([], "a", order="key")
    command = ["query", "SELECT label, label FROM a LIMIT 1", "--root", tmp_path]
    head, row = run_curate(*command).stdout.splitlines()
    assert row == "0\t0"
    assert len(head.split("\t")) == 2
    assert list(json.loads(run_curate(*command, "--json").stdout)[0].values()) == [0, 0]


def test_values_are_printed_one_row_a_line(tmp_path: Path, run_curate: Callable[..., Any]) -> None:
    sql = "SELECT 1234567 AS n, 'a' || chr(10) || 'b' || chr(9) || 'c' AS t, NULL AS nothing, 0.5 AS x"
    assert (
        run_curate("query", sql, "--root", tmp_path).stdout == "n\tt\tnothing\tx\n1,234,567\ta b c\t\t0.5\n"
    )


@pytest.mark.parametrize(
    ("a", "b", "relation", "kept", "added", "dropped"),
    [
        ([{"per_class": 4}], [{"per_class": 4}], "=", 24, 0, 0),
        ([{"per_class": 4}], [{"per_class": 6}], "⊂", 24, 12, 0),
        ([{"per_class": 6}], [{"per_class": 4}], "⊃", 24, 0, 12),
        ([{"classes": {"names": ["dog"]}}], [{"classes": {"names": ["cat"]}}], "∥", 0, 10, 10),
        ([{"classes": {"names": ["dog", "cat"]}}], [{"classes": {"names": ["cat", "car"]}}], "≬", 10, 10, 10),
    ],
)
def test_relation_of_samples(
    built: Built, a: list[Any], b: list[Any], relation: str, kept: int, added: int, dropped: int
) -> None:
    found = diff(built(a, "a").path, built(b, "b").path)
    assert found.relation == relation
    assert (found.kept, found.added, found.dropped) == (kept, added, dropped)
    assert (found.relabelled, found.recaptioned) == (0, 0)
    assert len(found.examples["added"]) == min(3, added)


def test_labels_and_captions_are_counted_apart(built: Built) -> None:
    plain = built([], "plain")
    noisy = diff(plain.path, built([{"noise": {"rate": 0.25}}], "noisy").path)
    told = diff(plain.path, built([{"caption": {"templates": ["a {}."]}}], "told").path)
    assert (noisy.relation, noisy.relabelled, noisy.recaptioned) == ("≅", 15, 0)
    assert (told.relation, told.relabelled, told.recaptioned) == ("≅", 0, 60)


def test_labels_are_compared_by_name_and_captions_by_text(built: Built) -> None:
    clean = built([{"caption": {"templates": ["a {}."]}}], "clean")
    noisy = built([{"noise": {"rate": 0.25}}, {"caption": {"templates": ["a {}."]}}], "noisy")
    found = diff(clean.path, noisy.path)
    assert (found.relation, found.relabelled) == ("≅", 15)
    # A crane is captioned as a crane, whether it flies or lifts.
    assert 0 < found.recaptioned <= 15
    assert all(" → " in example for example in found.examples["relabelled"])
    fewer = built([{"classes": {"names": ["dog", "car"]}}, {"caption": {"templates": ["a {}."]}}], "fewer")
    assert diff(clean.path, fewer.path).relabelled == 0  # though the numbers of the classes changed


def test_rows_without_labels_and_captions_are_compared(
    built: Built, jpeg: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    for i in range(3):
        (tmp_path / "plain" / f"{i}.jpg").write_bytes(jpeg(i))
    plain = built([], "plain-set", source={"folder": str(tmp_path / "plain")})
    found = diff(plain.path, plain.path)
    assert (found.relation, found.relabelled, found.recaptioned) == ("=", 0, 0)


def test_chain_of_sets_reads_as_one_line(
    recipe: MakeRecipe, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    build(recipe([{"per_class": "${n}"}], matrix={"n": [3, 5, 10]}), tmp_path / "out", overlay=True)
    paths = [tmp_path / "out" / f"set-n-{n}" for n in (3, 5, 10)]
    assert [d.relation for d in chain(paths)] == ["⊂", "⊂"]
    result = run_curate("diff", *paths)
    assert result.stdout.splitlines()[-1] == "set-n-3 (18) ⊂ set-n-5 (30) ⊂ set-n-10 (60)"
    assert [d["relation"] for d in json.loads(run_curate("diff", *paths, "--json").stdout)] == ["⊂", "⊂"]


def test_equal_rows_of_images_resized_otherwise_are_told(
    recipe: MakeRecipe, tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    for name, resize in {"whole": {}, "again": {}, "small": {"resize": {"short": 16}}}.items():
        build(recipe([{"per_class": 2}], name, **resize), tmp_path / name)
    equal, resized = chain([tmp_path / name for name in ("whole", "again", "small")])
    assert (equal.relation, equal.other_resize) == ("=", False)
    assert (resized.relation, resized.other_resize) == ("=", True)
    paths = (tmp_path / "again", tmp_path / "small")
    assert "again and small: equal rows, other `resize`\n" in run_curate("diff", *paths).stdout
    assert json.loads(run_curate("diff", *paths, "--json").stdout)[0]["other_resize"] is True


def test_a_folder_of_sets_is_compared_from_the_smallest_to_the_largest(
    built: Callable[..., Dataset], tmp_path: Path, run_curate: Callable[..., Any]
) -> None:
    for n in (10, 9, 2):
        built(
            [{"per_class": {"images": n, "short": "keep"}}], name=f"n{n}", out=tmp_path / "family" / f"n{n}"
        )
    shown = run_curate("diff", tmp_path / "family")
    assert shown.stdout.splitlines()[-1] == "n2 (12) ⊂ n9 (54) ⊂ n10 (60)"
    alone = run_curate("diff", tmp_path / "family" / "n2")
    assert alone.exit_code == 2
    assert "two datasets or more" in alone.stderr
