"""The recipe reference is generated from the operations, so it cannot say anything else."""

from pathlib import Path

import pytest

from curate import ops, sources
from curate.cli import examples, reference
from curate.recipes.recipe import Recipe

PAGE = Path(__file__).parents[3] / "docs" / "reference.md"


def test_the_page_is_what_the_operations_say():
    assert PAGE.read_text() == reference.markdown(), "`make reference` writes it again"


def test_every_operation_and_source_is_on_the_page():
    page = PAGE.read_text()
    names = ops.names() + sources.names()
    assert len(names) >= 11
    assert all(f"### {name}\n" in page for name in names)


def test_bounds_are_told_in_words():
    assert "rate: number, at least 0 and at most 1" in reference.explain("noise")


def test_only_the_options_of_a_docstring_are_a_list():
    lines = reference.markdown().splitlines()
    listed = {line.split("`")[1] for line in lines if line.startswith("- `")}
    options = {o for entry in reference.document() for o in entry["options"]}
    assert len(listed) > 50
    assert listed <= options
    assert any(line.startswith("https://arxiv.org/abs/1906.07413") for line in lines)


@pytest.mark.parametrize(
    ("operation", "columns"),
    [
        ("compute", "width height"),  # named inside an expression
        ("decontaminate", "sha256"),
        ("dedup", "sha256"),
        ("filter", "width height caption language"),
        ("language", "caption language"),
        ("longtail", ""),  # `order: size` names no column
        ("mix", "source"),
        ("text_based", "caption"),
        ("top", "similarity"),
    ],
)
def test_tables_show_the_columns_that_an_operation_reads(operation: str, columns: str) -> None:
    head = examples.shown(ops.find(operation)).splitlines()[2]
    assert head.split() == ["key", "class", *columns.split()]


def test_columns_are_read_by_operations_that_there_are():
    assert examples.READS.keys() <= set(ops.names())
    assert set().union(*examples.READS.values()) <= set(examples.COLUMNS)


def test_every_field_of_a_recipe_is_in_the_reference_with_its_default() -> None:
    page = reference.markdown()
    for name, field in Recipe.model_fields.items():
        if not field.exclude:
            [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
            assert len(row.split(" | ")) == 4  # no bar of a type ends a cell
    assert "| `samples_per_shard` | whole number, at least 1 | `10000` |" in page
    assert "`quality`: of the JPEGs that are written." in page
