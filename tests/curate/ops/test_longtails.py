"""`longtail`: the sizes that papers print, and who gets them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from curate.errors import CurateError, DataError
from curate.ops.longtail import tail
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]  # imbalance 100, as printed for CIFAR-10-LT


def by_class(rows: Rows, read: list[dict[str, Any]]) -> dict[str, int]:
    return dict(Counter(rows.classes[row["label"]].id for row in read))


def test_exponential_sizes_are_those_of_cifar_lt() -> None:
    assert tail("exponential", 10, 5000, 100, 6) == CIFAR10
    assert sum(CIFAR10) == 12_406
    assert tail("exponential", 2, 2490, 249, 6) == [2490, 10]  # the power gives 9.999999999999998
    assert sum(tail("exponential", 10, 5000, 10, 6)) == 20_431
    assert sum(tail("exponential", 100, 500, 100, 6)) == 10_847  # CIFAR-100-LT


def test_step_has_two_sizes() -> None:
    assert tail("step", 10, 5000, 100, 6) == [5000] * 5 + [50] * 5


def test_pareto_sizes_are_near_those_of_imagenet_lt() -> None:
    found = tail("pareto", 1000, 1280, 256, 6)
    assert (found[0], found[-1], sum(found)) == (1280, 5, 117_137)
    assert abs(sum(found) / 115_846 - 1) < 0.012
    assert found == sorted(found, reverse=True)


def test_pareto_sizes_are_in_the_middle_of_those_that_numpy_draws() -> None:
    draws = np.sort(np.random.default_rng(0).pareto(6, (2000, 1000)))[:, ::-1]
    median = np.median(draws, axis=0)
    found = tail("pareto", 1000, 1_000_000, 1_000_000, 6)
    for rank in (10, 100, 500, 900):  # relative to rank 1, whose own median is another quantile
        expected = median[rank] / median[1]
        assert found[rank] / found[1] == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("kind", ["pareto", "exponential", "step"])
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_tails_go_from_the_largest_to_the_smallest(kind: Any, classes: int) -> None:
    found = tail(kind, classes, 490, 49, 6)
    assert found[0] == 490
    assert found[-1] == 10 or classes == 1 or kind == "pareto"
    assert found[-1] >= 10


def test_balanced_tail_is_per_class(source: Source, apply: Apply, content: Content) -> None:
    flat = content(apply("longtail", source(), kind="exponential", largest=40, imbalance=1))
    assert len(flat) == 240
    assert flat == content(apply("per_class", source(), images=40))


def test_order_says_which_class_gets_which_size(source: Source, apply: Apply, content: Content) -> None:
    def drawn(**arguments: Any) -> list[int]:
        rows = apply("longtail", source(), kind="step", largest=50, imbalance=10, **arguments)
        return [by_class(rows, content(rows))[c.id] for c in rows.classes]

    assert drawn(order="label") == [50, 50, 50, 5, 5, 5]
    chances = [drawn(order="chance", seed=seed) for seed in range(8)]
    assert all(sorted(found) == [5, 5, 5, 50, 50, 50] for found in chances)
    assert len(set(map(tuple, chances))) > 3
    assert drawn(order="size")[0] == 50  # the class of 150
    assert drawn(order="size")[5] == 5  # the class of 50


def test_tails_nest_in_the_largest(source: Source, apply: Apply, content: Content) -> None:
    few, many = (
        {
            row["key"]
            for row in content(apply("longtail", source(), kind="pareto", largest=size, imbalance=10))
        }
        for size in (20, 50)
    )
    assert few
    assert few < many


def test_pareto_has_the_power_of_imagenet_lt_unless_it_is_given(
    source: Source, apply: Apply, content: Content
) -> None:
    def drawn(**given: float) -> list[dict[str, Any]]:
        return content(apply("longtail", source(), kind="pareto", largest=50, imbalance=10, **given))

    assert drawn() == drawn(alpha=6)
    assert len(drawn()) != len(drawn(alpha=1))


def test_short_classes_are_refused_or_kept_whole(source: Source, apply: Apply, content: Content) -> None:
    asked = {"kind": "exponential", "largest": 120, "imbalance": 2, "order": "label"}
    with pytest.raises(
        DataError, match=r"2 classes have fewer .* \(n02012849 has 100 of 104, n03126707 has 50 of 60\)"
    ):
        apply("longtail", source(), **asked)
    kept = apply("longtail", source(), **asked, short="keep")
    assert list(by_class(kept, sorted(content(kept), key=lambda row: row["label"])).values()) == [
        120,
        100,
        90,
        79,
        68,
        50,
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"imbalance": 0.5}, "greater than or equal to 1"),
        ({"imbalance": 21}, "less than 1"),
        ({"imbalance": 2, "alpha": 0}, "greater than 0"),
        ({"imbalance": 2, "alpha": 6}, "'alpha' does not belong to `kind: step`"),
        ({"imbalance": 2, "alpha": 6, "kind": "exponential"}, "'alpha' does not belong"),
        ({"imbalance": 2, "kind": "zipf"}, "'pareto', 'exponential' or 'step'"),
    ],
)
def test_longtail_refuses_nonsense(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CurateError, match=message):
        apply("longtail", source(0, planning=True), **({"kind": "step", "largest": 20} | arguments))
