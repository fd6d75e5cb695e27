"""`sample` by classes, `budget` and `split`: exact totals, fair to classes, and nested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import duckdb
import pytest

from curate.errors import CurateError, DataError, RecipeError
from curate.rows.manifest import Class
from curate.rows.quotas import allocate, by_chance
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Read = list[dict[str, Any]]
COUNTS = {0: 150, 1: 100, 2: 100, 3: 100, 4: 100, 5: 50}  # label → rows of `source()`


def keys(rows: Read) -> set[str]:
    return {row["key"] for row in rows}


def counted(rows: Read) -> dict[int, int]:
    return dict(Counter(row["label"] for row in rows))


def without_labels(rows: Rows) -> Rows:
    rows.con.execute("UPDATE source SET label = NULL WHERE label = 0")
    return rows


@pytest.mark.parametrize("number", [1, 5, 6, 7, 100, 300, 301, 599, 600])
def test_equal_sample_gives_as_many_of_each_class_as_far_as_they_go(
    source: Source, apply: Apply, content: Content, number: int
) -> None:
    found = counted(content(apply("sample", source(), number=number, allocation="equal")))
    assert sum(found.values()) == number
    level = max(found.values())
    # No class with rows left gives fewer than the largest, but by the one that does not divide.
    assert all(found.get(label, 0) >= min(level - 1, size) for label, size in COUNTS.items())


def test_classes_that_run_out_give_their_share_to_the_others(
    source: Source, apply: Apply, content: Content
) -> None:
    found = counted(content(apply("sample", source(), number=510, allocation="equal")))
    assert found == {0: 92, 1: 92, 2: 92, 3: 92, 4: 92, 5: 50}


def test_proportional_sample_gives_each_class_its_share(
    source: Source, apply: Apply, content: Content
) -> None:
    found = counted(content(apply("sample", source(), number=120, allocation="proportional")))
    assert found == {0: 30, 1: 20, 2: 20, 3: 20, 4: 20, 5: 10}


@pytest.mark.parametrize("number", [1, 7, 119, 355])
def test_proportional_sample_is_that_of_webster(
    source: Source, apply: Apply, content: Content, number: int
) -> None:
    """The oracle gives seats one by one to the largest of size / (2 * seats + 1), ties aside."""
    found = counted(content(apply("sample", source(), number=number, allocation="proportional")))
    seats = dict.fromkeys(COUNTS, 0)
    for _ in range(number):
        winner = max(COUNTS, key=lambda label: COUNTS[label] / (2 * seats[label] + 1))
        seats[winner] += 1
    assert sum(found.values()) == number
    for size in set(COUNTS.values()):  # classes of one size may swap the odd row
        those = [label for label in COUNTS if COUNTS[label] == size]
        assert sorted(found.get(x, 0) for x in those) == sorted(seats[x] for x in those)


@pytest.mark.parametrize("allocation", ["equal", "proportional"])
def test_samples_by_classes_nest(source: Source, apply: Apply, content: Content, allocation: str) -> None:
    draws = [
        keys(content(apply("sample", source(), number=number, allocation=allocation)))
        for number in (10, 50, 51, 300, 550)
    ]
    assert len(draws[0]) == 10
    assert all(few < many for few, many in pairwise(draws))


@pytest.mark.parametrize("allocation", ["equal", "proportional"])
def test_rows_without_a_label_are_sampled_as_one_class(
    source: Source, apply: Apply, content: Content, allocation: str
) -> None:
    found = counted(content(apply("sample", without_labels(source()), number=60, allocation=allocation)))
    assert found[None] == {"equal": 10, "proportional": 15}[allocation]  # type: ignore[index]
    assert sum(found.values()) == 60


@pytest.mark.parametrize(("total", "classes"), [(300, 6), (200, 4), (149, 3), (1, 1), (7, 6)])
def test_budget_is_exact_and_even(
    source: Source, apply: Apply, content: Content, total: int, classes: int
) -> None:
    after = apply("budget", source(), total=total, classes=classes)
    found = counted(content(after))
    assert len(after.classes) == len(found) == classes
    assert sum(found.values()) == total
    more = total % classes
    assert sorted(found.values()) == [total // classes] * (classes - more) + [total // classes + 1] * more


def test_budget_by_images_pays_for_as_many_classes_as_it_can(
    source: Source, apply: Apply, content: Content
) -> None:
    found = counted(content(apply("budget", source(), total=145, images=40)))
    assert sorted(found.values()) == [48, 48, 49]


def test_budget_draws_the_classes_of_classes_and_the_images_of_per_class(
    source: Source, apply: Apply, content: Content
) -> None:
    spent = content(apply("budget", source(), total=90, classes=3))
    by_steps = content(apply("per_class", apply("classes", source(), number=3), images=30))
    assert len(spent) == 90
    assert spent == by_steps


def test_budgets_nest_over_classes_and_over_images(source: Source, apply: Apply, content: Content) -> None:
    wide, narrow, deep = (
        keys(content(apply("budget", source(), total=total, classes=classes)))
        for total, classes in ((240, 6), (120, 3), (147, 3))
    )
    assert len(narrow) == 120
    assert narrow < wide
    assert narrow < deep


def test_budget_with_a_short_class_is_refused_with_its_count(source: Source, apply: Apply) -> None:
    with pytest.raises(DataError, match=r"1 of the 6 classes drawn .* 60 images \(n03126707 has 50\)"):
        apply("budget", source(), total=355, classes=6)


def test_budget_skips_short_classes_for_the_next(source: Source, apply: Apply, content: Content) -> None:
    after = apply("budget", source(), total=355, classes=5, short="skip")
    assert "n03126707" not in {c.wnid for c in after.classes}
    assert counted(content(after)) == dict.fromkeys(range(5), 71)
    with pytest.raises(DataError, match="2 classes with 101 images wanted; 1 of 6"):
        apply("budget", source(), total=201, classes=2, short="skip")


def test_plan_of_a_budget_that_may_skip_knows_no_classes(source: Source, apply: Apply) -> None:
    empty = source(0, planning=True)
    assert len(apply("budget", empty, total=500, classes=5).classes) == 5
    assert apply("budget", empty, total=500, classes=5, short="skip").known is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total": 10}, "either `classes` or `images`"),
        ({"total": 10, "classes": 2, "images": 5}, "either `classes` or `images`"),
        ({"total": 3, "classes": 4}, "too few for 4 classes"),
        ({"total": 3, "images": 4}, "too few for 4 a class"),
        ({"total": 70, "classes": 7}, "7 classes wanted of 6"),
        ({"total": 0, "classes": 1}, "greater than or equal to 1"),
    ],
)
@pytest.mark.parametrize("planning", [False, True])
def test_budget_refuses_nonsense(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str, planning: bool
) -> None:
    with pytest.raises(RecipeError, match=message):
        apply("budget", source(0 if planning else 600, planning=planning), **arguments)


def in_split(rows: Read, name: str) -> Read:
    return [row for row in rows if row["split"] == name]


def test_split_gives_exact_shares_of_every_class(source: Source, apply: Apply, content: Content) -> None:
    before = content(source())
    after = content(apply("split", source(), shares={"val": 0.1, "test": 0.2}))
    assert counted(in_split(after, "val")) == {0: 15, 1: 10, 2: 10, 3: 10, 4: 10, 5: 5}
    assert counted(in_split(after, "test")) == {0: 30, 1: 20, 2: 20, 3: 20, 4: 20, 5: 10}
    assert len(in_split(after, "train")) == 420
    assert [row | {"split": ""} for row in after] == [row | {"split": ""} for row in before]


def test_split_is_exact_in_all_where_classes_do_not_divide(
    source: Source, apply: Apply, content: Content
) -> None:
    after = content(apply("split", source(), shares={"val": 0.033}))
    found = counted(in_split(after, "val"))
    assert sum(found.values()) == 20  # 19.8
    assert all(abs(found[label] - 0.033 * size) < 1 for label, size in COUNTS.items())


def test_smaller_split_is_inside_the_larger(source: Source, apply: Apply, content: Content) -> None:
    def val(**arguments: Any) -> set[str]:
        return keys(in_split(content(apply("split", source(), **arguments)), "val"))

    few, many = val(shares={"val": 0.05}), val(shares={"val": 0.1})
    assert (len(few), len(many)) == (30, 60)
    assert few < many
    assert val(shares={"train": 0.95, "val": 0.05}) == few  # what is left over may be said
    assert val(images={"val": 3}) < val(images={"val": 7})


def test_split_by_images_takes_as_many_of_each_class(source: Source, apply: Apply, content: Content) -> None:
    rows = without_labels(source())
    after = content(apply("split", rows, images={"val": 5, "test": 7}, rest="learn"))
    labels = [None, 1, 2, 3, 4, 5]
    assert counted(in_split(after, "val")) == dict.fromkeys(labels, 5)
    assert counted(in_split(after, "test")) == dict.fromkeys(labels, 7)
    assert len(in_split(after, "learn")) == 600 - 6 * 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either `shares` or `images`"),
        ({"shares": {}}, "either `shares` or `images`"),
        ({"shares": {"val": 0.1}, "images": {"val": 3}}, "either `shares` or `images`"),
        ({"shares": {"val": 0.6, "test": 0.5}}, "add up to 1.1"),
        ({"shares": {"train": 0.6, "val": 0.1}}, "add up to 0.7"),
        ({"shares": {"val": 1.2}}, "less than or equal to 1"),
        ({"shares": {"": 0.2}}, "needs a name"),
        ({"images": {"train": 3}}, "which takes the rest"),
        ({"images": {"val": 40, "test": 11}}, r"fewer than 51 images \(n03126707 has 50\)"),
    ],
)
def test_split_refuses_nonsense(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CurateError, match=message):
        apply("split", source(), **arguments)


@pytest.mark.parametrize("allocation", ["equal", "proportional"])
@pytest.mark.parametrize("sizes", [[1000] + [1] * 300, [7, 7, 7, 7], [5, 90, 41, 3, 3, 1, 260], [1]])
def test_allocations_are_those_of_taking_row_after_row(allocation: str, sizes: list[int]) -> None:
    """The order of turns, written out: rank within the class, or (rank - 1/2) / size, then the classes' order."""
    with duckdb.connect() as con:
        con.execute("CREATE TABLE r (key VARCHAR, label INTEGER)")
        con.execute(
            "INSERT INTO r SELECT 'k' || l || '_' || i, l FROM "
            "(SELECT unnest(range(len(?))) AS l, unnest(?::INTEGER[]) AS n), range(n) t(i)",
            [sizes, sizes],
        )
        classes = tuple(Class(f"c{i}") for i in range(len(sizes)))
        rows = Rows(con, "r", {"key": "VARCHAR", "label": "INTEGER"}, classes)
        turn = {label: i for i, label in enumerate(by_chance(rows, 3, "salt/class"))}
        line = sorted(
            (Fraction(2 * n - 1, 2 * size) if allocation == "proportional" else n, turn[label], label)
            for label, size in enumerate(sizes)
            for n in range(1, size + 1)
        )
        for number in {0, 1, 2, len(line) // 3, len(line) // 2, len(line) - 1, len(line)}:
            expected = Counter(label for *_, label in line[:number])
            found = allocate(rows, number, allocation, 3, "salt")  # type: ignore[arg-type]
            assert {label: n for label, n in found.items() if n} == expected
