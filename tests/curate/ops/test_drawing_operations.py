"""`sample`, `per_class`, `classes`, `where`: who is kept, and how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from curate.errors import CurateError, DataError, RecipeError
from curate.rows.chance import chance
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
COUNTS = {0: 150, 1: 100, 2: 100, 3: 100, 4: 100, 5: 50}  # label → rows of `source()`


def keys(rows: list[dict[str, Any]]) -> set[str]:
    return {row["key"] for row in rows}


@pytest.mark.parametrize(
    ("name", "smaller", "larger"),
    [
        ("sample", {"number": 100}, {"number": 101}),
        ("sample", {"fraction": 0.1}, {"fraction": 0.5}),
        ("per_class", {"images": 20}, {"images": 40}),
        ("classes", {"number": 3}, {"number": 4}),
    ],
)
def test_smaller_draw_is_inside_the_larger(
    source: Source, apply: Apply, content: Content, name: str, smaller: dict[str, Any], larger: dict[str, Any]
) -> None:
    few, many = (keys(content(apply(name, source(), **arguments))) for arguments in (smaller, larger))
    assert few
    assert few < many < keys(content(source()))


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"number": 1}, 1),
        ({"number": 599}, 599),
        ({"number": 600}, 600),
        ({"fraction": 0.0}, 0),
        ({"fraction": 0.0008}, 0),
        ({"fraction": 0.0025}, 2),  # 1.5, halves up
        ({"fraction": 1.0}, 600),
    ],
)
def test_sample_is_exact(
    source: Source, apply: Apply, content: Content, arguments: dict[str, Any], count: int
) -> None:
    assert len(content(apply("sample", source(), **arguments))) == count


def test_sample_takes_the_rows_of_smallest_chance(source: Source, apply: Apply, content: Content) -> None:
    ranked = sorted(keys(content(source())), key=lambda key: chance(key, 9, "sample"))
    assert keys(content(apply("sample", source(), number=7, seed=9))) == set(ranked[:7])


def test_sample_of_more_than_there_is_is_refused(source: Source, apply: Apply) -> None:
    with pytest.raises(DataError, match="601 rows wanted of 600"):
        apply("sample", source(), number=601)


@pytest.mark.parametrize("arguments", [{}, {"number": 3, "fraction": 0.5}])
def test_sample_takes_one_of_number_and_fraction(
    source: Source, apply: Apply, arguments: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match="either `number` or `fraction`"):
        apply("sample", source(), **arguments)


def counted(rows: list[dict[str, Any]]) -> dict[int, int]:
    return dict(Counter(row["label"] for row in rows))


def test_per_class_draws_exactly_so_many_of_each(source: Source, apply: Apply, content: Content) -> None:
    assert counted(content(source())) == COUNTS
    assert counted(content(apply("per_class", source(), images=50))) == dict.fromkeys(range(6), 50)


def test_short_class_is_refused_with_its_count(source: Source, apply: Apply) -> None:
    with pytest.raises(
        DataError, match=r"1 classes have fewer than 51 images \(n03126707 has 50\)"
    ) as raised:
        apply("per_class", source(), images=51)
    assert "short: keep" in (raised.value.hint or "")


def test_short_class_is_kept_whole(source: Source, apply: Apply, content: Content) -> None:
    after = apply("per_class", source(), images=120, short="keep")
    assert counted(content(after)) == COUNTS | {0: 120}
    assert len(after.classes) == 6


def test_short_class_is_dropped_with_its_name(source: Source, apply: Apply, content: Content) -> None:
    rows = source(600, "WHERE label <> 2 OR size < 1020")
    after = apply("per_class", rows, images=50, short="drop")
    assert [c.name for c in after.classes] == [c.name for i, c in enumerate(rows.classes) if i != 2]
    assert counted(content(after)) == dict.fromkeys(range(5), 50)  # the labels close the gap


def test_rows_without_a_label_go_from_per_class(source: Source, apply: Apply, content: Content) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET label = NULL WHERE label = 0 AND size < 1100")
    kept = content(apply("per_class", rows, images=50))
    assert counted(kept) == dict.fromkeys(range(6), 50)


def test_classes_drawn_keep_all_their_rows_in_the_old_order(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = source()
    after = apply("classes", rows, number=4)
    names = [c.name for c in rows.classes]
    positions = [names.index(c.name) for c in after.classes]
    assert positions == sorted(positions)
    assert counted(content(after)) == {new: COUNTS[old] for new, old in enumerate(positions)}


def test_classes_are_named_by_wnid_or_name(source: Source, apply: Apply) -> None:
    after = apply("classes", source(), names=["dog", "n03126707"])
    assert [c.wnid for c in after.classes] == ["n02084071", "n03126707"]


@pytest.mark.parametrize("below", ["animal.n.01", "n00015388", ["animal.n.01", "n02084071"]])
def test_classes_below_a_synset_are_kept(source: Source, apply: Apply, below: Any) -> None:
    after = apply("classes", source(), below=below)
    assert [c.wnid for c in after.classes] == ["n01440764", "n02012849", "n02084071", "n02121620"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 7}, "7 classes wanted of 6"),
        ({"names": ["dgo"]}, "no class 'dgo'(?s:.*)did you mean 'dog'"),
        ({"below": "musical_instrument"}, "none of the 6 classes is below"),
        ({"below": "wolfhoundish"}, "wolfhoundish"),
        ({}, "takes one of"),
        ({"number": 2, "names": ["dog"]}, "takes one of"),
    ],
)
def test_classes_refuses(source: Source, apply: Apply, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CurateError) as raised:
        apply("classes", source(), **arguments)
    assert isinstance(raised.value, RecipeError)
    assert raised.match(message)


def test_where_keeps_what_the_condition_says(source: Source, apply: Apply, content: Content) -> None:
    kept = content(apply("where", source(), condition="width >= 90 AND split = 'train' -- large"))
    assert keys(kept) == {
        row["key"] for row in content(source()) if row["width"] >= 90 and row["split"] == "train"
    }
    assert kept


def test_where_drops_rows_for_which_the_condition_is_null(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET split = NULL WHERE label = 1")
    assert 1 not in counted(content(apply("where", rows, condition="split <> 'val'")))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("widht > 3", "no column 'widht'(?s:.*)did you mean 'width'"),
        ("width >", "not SQL: it ends too early"),
        ("(width > 3", "not SQL: it ends too early"),
        ("width > 3)", r'not SQL: syntax error at or near "\)"'),
        ("", "names no column"),
        ("1 = 1", "names no column"),
        ("width > (SELECT 3)", "query of its own"),
        ("key IN (FROM read_text('/etc/hostname') SELECT content)", "query of its own"),
        ("row_number() OVER () < 3 AND width > 0", "looks at other rows"),
        ("width > ?", "parameter"),
        ("COLUMNS('w.*') > 3", "star"),
        ("width > random() * 64", r"random\(\) depends on when"),
        ("width > 0 AND now() > '2020-01-01'", r"now\(\) depends on when"),
        ("getenv('HOME') = key", r"getenv\(\) depends on when"),
        ("getvariable('a') = key", r"getvariable\(\) depends on when"),
        ("current_setting('threads') = key", r"current_setting\(\) depends on when"),
        ("width > 0; DROP TABLE source", "not SQL"),
        ("width > 0) ORDER BY (key", "more than one condition"),
        ("width > 0) LIMIT (3", "more than one condition"),
        ("width > 0) GROUP BY ROLLUP (key", "more than one condition"),
        ("width > 0) QUALIFY (row_number() OVER () < 3", "more than one condition"),
        ("width > 0) USING SAMPLE (10", "more than one condition"),
        ("width > 0) UNION ALL SELECT (1", "more than one condition"),
    ],
)
def test_where_refuses_all_but_a_condition_on_one_row(
    source: Source, apply: Apply, condition: str, message: str
) -> None:
    with pytest.raises(RecipeError) as raised:
        apply("where", source(), condition=condition)
    assert raised.match(message)
