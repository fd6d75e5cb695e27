"""What is not a number is no value anywhere: a row with NaN is treated as the same row with NULL."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from operation_examples import EXAMPLES

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.errors import CurateError, RecipeError
from curate.recipes.recipe import load
from curate.rows.relation import FLOATS, Rows

Write = Callable[..., Path]
NAN = float("nan")
SCORES = [0.1, NAN, 0.9, None, NAN, 0.5, 0.3, NAN]


def table(folder: Path, lost: float | None, kind: Any = None, *, nulls: bool = True) -> Path:
    """Write a table of URLs whose scores that are none are `lost`; it may have no NULL besides.

    Parquet's statistics leave NaN out: without a NULL, DuckDB 2.0 takes it from them that there is no NaN.
    """
    folder.mkdir()
    scores = [s if nulls or s is not None else 0.7 for s in SCORES]
    scores = [lost if s is not None and math.isnan(s) else s for s in scores]
    columns = {
        "url": [f"https://example.com/{i}.jpg" for i in range(len(SCORES))],
        "caption": [f"a dog {i}" for i in range(len(SCORES))],
        "similarity": pa.array(scores, kind or pa.float64()),
    }
    pq.write_table(pa.table(columns), folder / "0.parquet")
    return folder


STEPS: dict[str, list[Any]] = {
    "no step": [],
    "best": [{"top": {"by": "similarity", "number": 3}}],
    "worst": [{"top": {"by": "similarity", "number": 3, "order": "lowest"}}],
    "best share": [{"top": {"by": "similarity", "fraction": 0.25}}],
    "where": [{"where": "similarity >= 0.3"}],
    "where not": [{"where": "NOT similarity < 0.3 OR caption = 'a dog 1'"}],
    "where null": [{"where": "similarity IS NULL"}],
    "filter": [{"filter": {"min_similarity": 0.3, "keep": "flag"}}],
    "clip share": [{"clip_score": {"fraction": 0.3, "keep": "flag"}}],
    "clip": [{"clip_score": {"threshold": 0.3}}],
    "compute": [{"compute": {"columns": {"more": "similarity * 2"}}}, {"top": {"by": "more", "number": 2}}],
    "label": [{"label_from": {"column": "similarity"}}],
    "drawn": [{"where": "similarity > 0"}, {"sample": {"number": 2}}],
    "mixed": [
        {"compute": {"columns": {"source": "if(similarity > 0.3, 'a', 'b')"}}},
        {"mix": {"counts": {"a": 2, "b": 2}}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()], ids=str)
@pytest.mark.parametrize("nulls", [True, False])
@pytest.mark.parametrize("case", STEPS)
def test_a_score_that_is_none_counts_as_none(
    write_recipe: Write, tmp_path: Path, case: str, nulls: bool, kind: Any
) -> None:
    made: list[Dataset] = []
    for name, lost in (("nan", NAN), ("null", None)):
        source = {"table": str(table(tmp_path / name, lost, kind, nulls=nulls))}
        recipe = write_recipe({"source": source, "steps": STEPS[case], "name": "same"}, name)
        [result] = build(load(recipe), tmp_path / f"{name}-out", overlay=True)
        made.append(result.dataset)
    assert made[0].digest == made[1].digest
    assert made[0].table().equals(made[1].table())
    assert [s.model_dump(exclude={"arguments"}) for s in made[0].info.ledger] == [
        s.model_dump(exclude={"arguments"}) for s in made[1].info.ledger
    ]
    assert len(made[0])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_joined_score_that_is_none_is_null(
    source: Callable[..., Rows], apply: Callable[..., Rows], content: Any, tables: Path, ending: str
) -> None:
    rows = source(4)
    file = tables / f"odd-scores.{ending}"
    keys = [f"pool/{i:07d}" for i in range(4)]
    if ending == "csv":
        values = zip(keys, ("0.5", "nan", "NaN", "0.25"), strict=True)
        file.write_text("key,odd\n" + "".join(f"{k},{v}\n" for k, v in values))
    else:
        pq.write_table(pa.table({"key": keys, "odd": [0.5, NAN, NAN, 0.25]}), file)
    joined = apply("join", rows, file=file.name)
    assert [r["odd"] for r in content(joined)] == [0.5, None, None, 0.25]
    listed = apply("join", rows, file=file.name, several="list")
    assert [r["odd"] for r in content(listed)] == [[0.5], [None], [None], [0.25]]


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_operation_makes_what_is_not_a_number(
    source: Callable[..., Rows], apply: Callable[..., Rows], name: str
) -> None:
    example = EXAMPLES[name][0]
    after = apply(name, source(example=example), **example.arguments)
    for column in (c for c, kind in after.columns.items() if kind in FLOATS):
        assert not after.scalar(f'SELECT count(*) FROM {after} WHERE isnan("{column}")')


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e400"])
@pytest.mark.parametrize(
    "step", ["clip_score: {threshold: N}", "filter: {max_aspect: N}", "sample: {fraction: N}"]
)
def test_options_are_numbers(write_recipe: Write, tmp_path: Path, step: str, number: str) -> None:
    source = f"{{table: {table(tmp_path / 'p', None)}}}"
    path = write_recipe(f"name: a\nsource: {source}\nsteps:\n  - {step.replace('N', number)}\n")
    with pytest.raises(RecipeError, match="number"):
        build(load(path), tmp_path / "out")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("side * 65536 * 65536", r"Overflow in multiplication of INT32(?s:.*)width::BIGINT"),
        ("caption::INTEGER", r"Could not convert string 'a dog \d' to INT32(?s:.*)try_cast"),
        ("10 // (side - 64)", "Division by zero(?s:.*)nullif"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_an_expression_cannot_take_is_told_with_its_step(
    write_recipe: Write, tmp_path: Path, expression: str, says: str, streamed: bool
) -> None:
    if "Division" in says and duckdb.__version__.startswith("1."):
        says = ""  # there it is NULL
    steps: list[Any] = [{"compute": {"columns": {"side": "64"}}}, {"compute": {"columns": {"x": expression}}}]
    if not streamed:
        steps.insert(0, {"top": {"by": "similarity", "number": 2}})
    source = {"table": str(table(tmp_path / "p", None))}
    recipe = load(write_recipe({"source": source, "steps": [*steps, {"where": "x > 0 OR key > ''"}]}))
    if not says:
        build(recipe, tmp_path / "out", overlay=True)
        return
    with pytest.raises(CurateError, match=rf"step {len(steps)} \(compute\): ") as raised:
        build(recipe, tmp_path / "out", overlay=True)
    assert raised.match(says)
    assert expression in raised.value.message
