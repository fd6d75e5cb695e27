"""What holds for every operation, tested over the whole registry: a new one needs only its examples here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from operation_examples import EXAMPLES, Example

from curate import ops, sources
from curate.cli import examples
from curate.recipes.signatures import Signature
from curate.rows.manifest import CORE
from curate.rows.relation import TEMPORARY, Rows

MANY_ROWS = 130_000  # more than the 122,880 that DuckDB gives to one thread


CASES = [
    pytest.param(name, e, id=f"{name}-{i}") for name, found in EXAMPLES.items() for i, e in enumerate(found)
]
FIRST = [pytest.param(name, found[0], id=name) for name, found in EXAMPLES.items()]
ROW_WISE = [case for case in CASES if case.values[1].row_wise]
Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]


def test_every_operation_has_examples() -> None:
    known = set(ops.names())
    assert not known - set(EXAMPLES), "add it to EXAMPLES in tests/support/operation_examples.py"
    assert not set(EXAMPLES) - known, "no operation has this name: the file is named as its function"
    assert all(EXAMPLES.values())


@pytest.mark.parametrize(("name", "example"), CASES)
def test_keys_labels_and_columns_that_come_out_are_sound_and_what_went_in_is_untouched(
    source: Source, apply: Apply, content: Content, name: str, example: Example
) -> None:
    rows = source(example=example)
    before, columns, classes = content(rows), dict(rows.columns), rows.classes
    after = apply(name, rows, **example.arguments)
    found = content(after)
    keys_are_unique_and_of_the_input(found, before)
    labels_are_of_classes_whose_names_differ(after, found)
    assert {c: after.columns.get(c) for c in CORE} == CORE
    assert after.columns["extra"] == "VARCHAR"
    left = [c for c in after.columns.keys() - columns.keys() if c.startswith(TEMPORARY)]
    assert not left, "columns of the step's own: EXCLUDE them from what it returns"
    assert content(rows) == before
    assert (rows.columns, rows.classes) == (columns, classes)


def keys_are_unique_and_of_the_input(found: list[dict[str, Any]], before: list[dict[str, Any]]) -> None:
    keys = [row["key"] for row in found]
    assert keys
    assert len(set(keys)) == len(keys)
    assert set(keys) <= {row["key"] for row in before}


def labels_are_of_classes_whose_names_differ(after: Rows, found: list[dict[str, Any]]) -> None:
    for column in {"label", "clean_label"} & set(after.columns):
        labels = {row[column] for row in found}
        assert labels
        assert labels <= set(range(len(after.classes)))
        assert after.columns[column] == "INTEGER"
    names = [c.name for c in after.classes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "example"), CASES)
def test_no_rows_give_no_rows_of_the_same_columns(
    source: Source, apply: Apply, content: Content, name: str, example: Example
) -> None:
    full = apply(name, source(example=example), **example.arguments).columns
    empty = apply(name, source(0, planning=True, example=example), **example.arguments)
    assert empty.columns == full  # what the plan promises
    assert content(empty) == []


@pytest.mark.parametrize(("name", "example"), CASES)
def test_order_of_rows_does_not_matter(
    source: Source, apply: Apply, content: Content, name: str, example: Example
) -> None:
    forward = content(apply(name, source(example=example), **example.arguments))
    shuffled = content(apply(name, source(600, "ORDER BY md5(key)", example=example), **example.arguments))
    assert forward == shuffled


@pytest.mark.parametrize(("name", "example"), FIRST)
def test_number_of_threads_does_not_matter(source: Source, apply: Apply, name: str, example: Example) -> None:
    rows = source(MANY_ROWS, example=example)
    found = []
    for threads in (1, 4):
        rows.con.execute(f"SET threads = {threads}")
        after = apply(name, rows, **example.arguments)
        found.append(rows.con.execute(f"SELECT count(*), bit_xor(hash(r)) FROM {after} r").fetchone())
    assert found[0] == found[1]
    assert found[0][0] > 0


@pytest.mark.parametrize(("name", "example"), ROW_WISE)
def test_halves_apart_equal_the_whole(
    source: Source, apply: Apply, content: Content, name: str, example: Example
) -> None:
    def kept(rest: str) -> list[dict[str, Any]]:
        return content(apply(name, source(600, rest, example=example), **example.arguments))

    halves = [kept(f"WHERE size % 2 = {half}") for half in (0, 1)]
    assert all(halves)
    assert sorted(halves[0] + halves[1], key=lambda row: row["key"]) == kept("")


def with_lists(example: Example) -> Example:
    """Give every row that has a caption a list of two texts more."""
    caption = example.columns.get("caption", "'it is number ' || i || ' of them'")
    lists = f"if(({caption}) IS NULL, NULL, ['a word of ' || i, {caption}, 'three other words'])"
    return example._replace(columns={**example.columns, "caption": caption, "captions": lists})


@pytest.mark.parametrize(("name", "example"), CASES)
def test_a_row_that_has_captions_has_a_caption_that_is_one_of_them(
    source: Source, apply: Apply, content: Content, name: str, example: Example
) -> None:
    rows = source(example=with_lists(example))
    before = {row["key"]: row for row in content(rows)}
    after = content(apply(name, rows, **example.arguments))
    assert after
    for row in after:
        assert row.get("captions") is None or row["caption"] in row["captions"]
        if "clean_caption" not in rows.columns:
            assert row.get("clean_captions") is None or row["clean_caption"] in row["clean_captions"]
        was = before[row["key"]]
        if row["caption"] == was["caption"] and row.get("captions") is not None:
            assert set(row["captions"]) >= {was["caption"]}
        if name != "clean" and row["caption"] != was["caption"] and "captions" in row:
            # Whatever made another text of the caption left none of the others as it was.
            assert row["captions"] is None or row["captions"] != was["captions"]


@pytest.mark.parametrize(("name", "example"), [c for c in FIRST if "seed" in ops.find(c.id).signature.names])
def test_seeds_differ(source: Source, apply: Apply, content: Content, name: str, example: Example) -> None:
    rows = source(example=example)
    found = [content(apply(name, rows, **example.arguments, seed=seed)) for seed in (1, 2, 1)]
    assert found[0] == found[2]
    assert found[0] != found[1]


def documented(doc: str) -> set[str]:
    lines = doc.partition("Args:\n")[2].split("\n\n")[0]
    return set(re.findall(r"^    (\w+): ", lines, re.MULTILINE))


@pytest.mark.parametrize("name", ops.names())
def test_every_option_of_an_operation_is_documented(name: str) -> None:
    operation = ops.find(name)
    assert documented(operation.doc) == set(operation.signature.names) - {"seed"}  # the recipe has the seed
    assert operation.version >= 1


@pytest.mark.parametrize("name", ops.names())
def test_every_operation_shows_what_it_does_to_a_few_rows(name: str) -> None:
    before, _, after = examples.shown(ops.find(name)).partition("after\n")
    assert before.count("\n") > 8, "the docstring needs an `Example:`"
    assert before.removeprefix("before\n").strip() != after.strip()


@pytest.mark.parametrize("name", sources.names())
def test_every_option_of_a_source_is_documented(name: str) -> None:
    assert documented(sources.doc(name)) == set(Signature(sources.opener(name)).names)


@pytest.mark.parametrize("doc", [*map(sources.doc, sources.names()), *(ops.find(n).doc for n in ops.names())])
def test_docs_open_with_one_sentence(doc: str) -> None:
    first = doc.split("\n")[0]
    assert first[0].isupper()
    assert first.endswith(".")
