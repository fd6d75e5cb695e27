"""The recipe reference is generated from the operations, so it cannot say anything else."""

from pathlib import Path

from curate import ops, references, sources

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_page_is_what_the_operations_say():
    assert PAGE.read_text() == references.markdown(), "`make reference` writes it again"


def test_every_operation_and_source_is_on_the_page():
    page = PAGE.read_text()
    names = ops.names() + sources.names()
    assert len(names) >= 11
    assert all(f"### {name}\n" in page for name in names)


def test_bounds_are_told_in_words():
    assert "rate: number, at least 0 and at most 1" in references.explain("noise")
