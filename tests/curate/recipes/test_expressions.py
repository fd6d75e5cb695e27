"""`${…}` in a recipe, and a matrix of points: values by arithmetic, and no code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.errors import RecipeError
from curate.recipes.expressions import fill, variables
from curate.recipes.recipe import load

Write = Callable[..., Path]
GIVEN = {"images": 500, "scale": 0.01, "folder": "/data", "full": None, "steps": [{"sample": 3}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${images}", 500),
        ("${ images }", 500),
        ("${steps}", [{"sample": 3}]),
        ("${folder}/train-${images}", "/data/train-500"),
        ("${round(images * scale)}", 5),
        ("${max(1, round(images * scale / 100))}", 1),
        ("${images // 3 - -2}", 168),
        ("${int(images / 3)}x", "166x"),
        ("${images if scale == 1 else null}", None),
        ("${images if scale < 1 else 0}", 500),
        ("${true}", True),
        ("no hole", "no hole"),
        ("$images {images}", "$images {images}"),
    ],
)
def test_a_hole_takes_its_value_and_type(text: str, value: Any) -> None:
    assert fill(text, GIVEN, "r.yaml") == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${imges}", r"\$\{imges\} has no value(?s:.*)did you mean 'images'"),
        ("${images ** 9}", "not a variable or arithmetic"),
        ("${__import__('os')}", "not a variable or arithmetic"),
        ("${folder.upper()}", "not a variable or arithmetic"),
        ("${images / 0}", "division by zero"),
        ("${folder * 1000}", "arithmetic takes numbers"),
        ("${[1][0]}", "not a variable or arithmetic"),
        ("${}", "not a variable or arithmetic"),
        ("${" + "1+" * 200 + "1}", "not a variable or arithmetic"),
    ],
)
def test_a_hole_that_means_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        fill({"a": [text]}, GIVEN, "r.yaml")


def test_variables_are_found_wherever_they_stand() -> None:
    document = {"${a}": ["${round(b * c)}", {"d": "x${e}${f if g else null}"}], "h": 1}
    assert variables(document) == set("abcefg")


POINTS: dict[str, Any] = {
    "source": {"synthetic": {}},
    "steps": [{"sample": {"number": "${n}"}}, "${last}"],
    "matrix": [
        {"name": "few", "n": 10, "last": {"noise": {"rate": 0.1}}},
        {"name": "many", "n": 20, "last": {"per_class": 1}},
    ],
}


def test_points_name_the_sets_of_a_family(write_recipe: Write) -> None:
    family = load(write_recipe(POINTS)).family
    assert [r.name for r in family] == ["recipe-few", "recipe-many"]
    assert family[1].steps == [{"sample": {"number": 20}}, {"per_class": 1}]
    assert [r.name for r in load(write_recipe(POINTS), {"n": "20"}).family] == ["recipe-many"]


def test_points_without_names_are_called_by_their_values(write_recipe: Write) -> None:
    matrix = [{"n": 10, "m": 2}, {"n": 20, "m": 1}]
    content = {"source": {"synthetic": {}}, "steps": [{"sample": "${n + m}"}], "matrix": matrix}
    assert [r.name for r in load(write_recipe(content)).family] == ["recipe-n-10-m-2", "recipe-n-20-m-1"]


def test_a_point_may_use_variables_and_do_without_a_step(write_recipe: Write) -> None:
    matrix = [{"name": "none", "last": None}, {"name": "some", "last": {"noise": {"rate": "${rate}"}}}]
    content = {"source": {"synthetic": {}}, "set": {"rate": 0.5}, "steps": ["${last}"], "matrix": matrix}
    family = load(write_recipe(content), {"rate": "0.25"}).family
    assert [[(name, value) for _, name, value in r.parsed_steps()] for r in family] == [
        [],
        [("noise", {"rate": 0.25})],
    ]


def test_bad_points_are_refused(write_recipe: Write) -> None:
    with pytest.raises(RecipeError, match="no point of matrix has"):
        load(write_recipe(POINTS), {"n": "11"})
    twice = POINTS | {"matrix": [POINTS["matrix"][0]] * 2}
    with pytest.raises(RecipeError, match="two points of matrix have one name"):
        load(write_recipe(twice))
    with pytest.raises(RecipeError, match="has no variable 'm'"):
        load(write_recipe(POINTS), {"m": "11"})
