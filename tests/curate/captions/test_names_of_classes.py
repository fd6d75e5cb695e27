"""Classes called by numbers, and columns that get another name: what a recipe may say of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from curate.recipes.recipe import load
from curate.rows.relation import Rows

Write = Callable[..., Path]
Source = Callable[..., Rows]
Apply = Callable[..., Rows]


def folder(top: Path, *classes: str) -> Path:
    """Write a folder of so many classes, each with two images."""
    for number, name in enumerate(classes):
        (top / name).mkdir(parents=True)
        for image in range(2):
            Image.new("RGB", (8, 8), (number * 20, image * 90, 0)).save(top / name / f"{top.name}{image}.png")
    return top


def built(write_recipe: Write, tmp_path: Path, text: str, **how: Any) -> Dataset:
    path = write_recipe(f"name: a\n{text}")
    [result] = build(load(path), tmp_path / "out", overlay=True, **how)
    return result.dataset


@pytest.mark.parametrize(
    ("step", "names"),
    [
        ("relabel: {map: {123: neg, 456: 7, 9: neg}}", ["neg", "7"]),
        ("relabel: {map: {123: neg}, others: keep}", ["neg", "456", "9"]),
        ("classes: {names: [9, 123]}", ["123", "9"]),
        ("noise: {kind: asymmetric, rate: 0.5, map: {123: 456}}", ["123", "456", "9"]),
    ],
)
def test_classes_called_by_numbers_are_named_by_them(
    write_recipe: Write, tmp_path: Path, step: str, names: list[str]
) -> None:
    source = folder(tmp_path / "g", "123", "456", "9")
    data = built(write_recipe, tmp_path, f"source: {{folder: {source}}}\nsteps:\n  - {step}\n")
    assert [c.name for c in data.classes] == names


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("0123", "put quotes around 0123"),
        ("0x10", "put quotes around 0x10"),
        ("1_000", "put quotes around 1_000"),
        ("1.0", "map.*put quotes around it, .*not 1.0"),
        ("true", "put quotes around it"),
        ("2020-01-01", "put quotes around it"),
        ("null", "input should be a valid string, not None"),
        ("9" * 500, "a number of 500 digits"),
    ],
)
def test_a_name_that_yaml_reads_as_something_else_is_refused(
    write_recipe: Write, tmp_path: Path, name: str, says: str
) -> None:
    source = folder(tmp_path / "g", "a")
    for step in (f"relabel: {{map: {{{name}: neg}}}}", f"relabel: {{map: {{a: {name}}}}}"):
        with pytest.raises(RecipeError, match=says) as raised:
            built(write_recipe, tmp_path, f"source: {{folder: {source}}}\nsteps:\n  - {step}\n")
        assert "dict[" not in str(raised.value)


def test_a_number_and_its_text_are_one_name(write_recipe: Write, tmp_path: Path) -> None:
    source = folder(tmp_path / "g", "123")
    with pytest.raises(RecipeError, match="'123' stands twice"):
        built(
            write_recipe,
            tmp_path,
            f"source: {{folder: {source}}}\nsteps:\n  - relabel: {{map: {{123: a, '123': b}}}}\n",
        )


def test_a_label_of_a_table_comes_under_another_name(write_recipe: Write, tmp_path: Path) -> None:
    source = folder(tmp_path / "g", "x")
    (tmp_path / "labels.csv").write_text("key,label,size\nx/g0,dog,1\nx/g1,cat,2\n")
    text = f"source: {{folder: {source}}}\n"
    steps = "steps:\n  - join: {file: labels.csv, columns: {label: their_label, size: weight}}\n"
    data = built(write_recipe, tmp_path, text + steps)
    found = data.table().to_pylist()
    assert {r["key"]: (r["their_label"], r["weight"]) for r in found} == {
        "x/g0": ("dog", 1),
        "x/g1": ("cat", 2),
    }
    assert {r["size"] for r in found} == {f.stat().st_size for f in (source / "x").iterdir()}


def test_the_way_out_of_a_label_column_leads_out(
    source: Source, apply: Apply, content: Any, tables: Path
) -> None:
    (tables / "labels.csv").write_text(
        "key,label\n" + "".join(f"pool/{i:07d},{['cat', 'dog'][i % 2]}\n" for i in range(6))
    )
    with pytest.raises(RecipeError, match="'label' would replace the rows' own") as raised:
        apply("join", source(6), file="labels.csv")
    assert "columns: {label: their_label}" in str(raised.value)
    assert "label_from: their_label" in str(raised.value)
    joined = apply("join", source(6), file="labels.csv", columns={"label": "their_label"})
    labelled = content(apply("label_from", joined, column="their_label"))
    assert [r["label"] for r in labelled] == [3, 2] * 3  # among the set's own classes
    assert [r["their_label"] for r in labelled] == ["cat", "dog"] * 3


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"score": "Label"}, "'Label' would replace"),
        ({"score": "x", "rate": "X"}, "'score' and 'rate' would both be 'X'"),
        ({"scor": "x"}, "no column 'scor'(?s:.*)did you mean 'score'"),
    ],
)
def test_names_that_cannot_be_given_are_refused(
    source: Source, apply: Apply, columns: dict[str, str], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        apply("join", source(), file="scores.csv", columns=columns)


def test_a_renamed_column_takes_the_place_of_one_of_its_name(
    source: Source, apply: Apply, content: Any
) -> None:
    rows = content(apply("join", source(3), file="scores.csv", columns={"score": "Extra"}))
    assert [r["extra"] for r in rows] == [0.0, 0.37, 0.74]


def test_a_union_keeps_the_order_of_numbers_where_its_parts_have_it(
    write_recipe: Write, tmp_path: Path
) -> None:
    for part, labels in (("a", [0, 1, 2, 10, 11]), ("b", [0, 2, 9])):
        (tmp_path / part).mkdir()
        for number in labels:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / part / f"{part}{number}.png")
        lines = "".join(f"{part}{n},{n}\n" for n in labels)
        (tmp_path / f"{part}.csv").write_text("key,y\n" + lines)
        steps = f"steps:\n  - join: {{file: {part}.csv}}\n  - label_from: {{column: y}}\n"
        path = write_recipe(f"name: {part}\nsource: {{folder: {tmp_path / part}}}\n{steps}", part)
        build(load(path), tmp_path / f"{part}-set", overlay=True)
    parts = "{a: {dataset: a-set}, b: {dataset: b-set}}"
    data = built(write_recipe, tmp_path, f"source: {{union: {{parts: {parts}}}}}\n")
    assert [c.name for c in data.classes] == ["0", "1", "2", "9", "10", "11"]


def test_folders_called_by_numbers_keep_the_order_of_their_names(write_recipe: Write, tmp_path: Path) -> None:
    source = folder(tmp_path / "g", "0", "2", "10")
    data = built(write_recipe, tmp_path, f"source: {{folder: {source}}}\n")
    assert [c.name for c in data.classes] == ["0", "10", "2"]  # as torchvision's ImageFolder


@pytest.mark.parametrize(("name", "wnid"), [("dog", "n02084071"), ("Tench", "n01440764")])
def test_a_union_says_which_names_are_not_taken_for_wnids(
    write_recipe: Write, tmp_path: Path, name: str, wnid: str
) -> None:
    folder(tmp_path / "a", name)
    folder(tmp_path / "b", wnid)
    source = "source: {union: {parts: {a: {folder: a}, b: {folder: b}}}}\n"
    data = built(write_recipe, tmp_path, source)
    [note] = [n for n in data.info.ledger[0].notes if "stay apart" in n]
    assert len(data.classes) == 2
    step = note.partition("`")[2].partition("`")[0]  # what it says to do
    path = write_recipe(f"name: b\n{source}steps:\n  - {step}\n", "b")
    [merged] = build(load(path), tmp_path / "merged", overlay=True)
    assert [c.wnid for c in merged.dataset.classes] == [wnid]
    assert len(merged.dataset) == 4
