"""The kinds of label noise that need no table: who is hit, what the labels become, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import chisquare

from curate.errors import CurateError, RecipeError
from curate.rows.chance import chance
from curate.rows.manifest import Class
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Read = list[dict[str, Any]]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PETS = {"dog": "cat", "cat": "dog"}  # labels 2 and 3 of six
LOWEST_P = 1e-4  # of a fair draw, one test in ten thousand falls below; the draws are fixed by their seeds


def wrong(rows: Read) -> dict[str, int]:
    return {row["key"]: row["label"] for row in rows if row["label"] != row["clean_label"]}


def by_class(rows: Read) -> Counter[int]:
    return Counter(row["clean_label"] for row in rows if row["label"] != row["clean_label"])


def uniform(counts: Sequence[int]) -> bool:
    return chisquare(counts).pvalue > LOWEST_P


def cifar10(source: Source, count: int = 6000) -> Rows:
    rows = source(count)
    rows.con.execute("UPDATE source SET label = size % 10")
    return replace(rows, known=tuple(Class(name) for name in CIFAR10))


KINDS = [
    {"kind": "symmetric"},
    {"kind": "symmetric_inclusive"},
    {"kind": "pair"},
    {"kind": "asymmetric", "map": PETS},
    {"kind": "hierarchy"},
]


@pytest.mark.parametrize("per", ["overall", "class"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_a_lower_rate_is_inside_a_higher_one_for_every_kind(
    source: Source, apply: Apply, content: Content, kind: dict[str, Any], per: str
) -> None:
    few, many = (wrong(content(apply("noise", source(), rate=rate, per=per, **kind))) for rate in (0.2, 0.45))
    assert few
    assert few.items() < many.items()


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k["kind"] != "symmetric_inclusive"], ids=lambda k: k["kind"]
)
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.3337, 1.0])
def test_the_rate_is_exact_over_the_rows_that_can_be_wrong(
    source: Source, apply: Apply, content: Content, kind: dict[str, Any], rate: float
) -> None:
    able = 200 if "map" in kind else 600  # dogs and cats
    assert len(wrong(content(apply("noise", source(), rate=rate, **kind)))) == int(able * rate + 0.5)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k["kind"] != "symmetric_inclusive"], ids=lambda k: k["kind"]
)
def test_the_rate_is_exact_inside_every_class(
    source: Source, apply: Apply, content: Content, kind: dict[str, Any]
) -> None:
    sizes = {0: 150, 1: 100, 2: 100, 3: 100, 4: 100, 5: 50}
    able = {2, 3} if "map" in kind else set(sizes)
    found = by_class(content(apply("noise", source(), rate=0.33, per="class", **kind)))
    assert found == {label: int(size * 0.33 + 0.5) for label, size in sizes.items() if label in able}


def test_the_rows_hit_are_those_of_smallest_chance(source: Source, apply: Apply, content: Content) -> None:
    keys = sorted(
        (row["key"] for row in content(source())), key=lambda key: (chance(key, 9, "noise/hit"), key)
    )
    assert set(wrong(content(apply("noise", source(), rate=0.1, seed=9)))) == set(keys[:60])


def test_symmetric_targets_are_uniform_over_the_other_classes(
    source: Source, apply: Apply, content: Content
) -> None:
    pairs = Counter(
        (row["clean_label"], row["label"]) for row in content(apply("noise", source(12_000), rate=1.0))
    )
    for true in range(6):
        counts = [pairs[true, given] for given in range(6) if given != true]
        assert min(counts) > 100
        assert uniform(counts)


def test_inclusive_noise_redraws_over_all_classes_so_that_some_stay(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = content(apply("noise", source(12_000), kind="symmetric_inclusive", rate=1.0))
    for true in range(6):
        found = Counter(row["label"] for row in rows if row["clean_label"] == true)
        assert uniform([found[given] for given in range(6)])
    # 12,000 draws that differ with chance 5/6: 10,000, five standard deviations of 40.8
    assert abs(len(wrong(rows)) - 10_000) < 204


def test_pair_noise_gives_the_next_class_and_the_last_the_first(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = content(apply("noise", source(), kind="pair", rate=0.5))
    assert {(row["clean_label"], row["label"]) for row in rows if row["label"] != row["clean_label"]} == {
        (i, (i + 1) % 6) for i in range(6)
    }


def test_named_map_of_cifar10_is_the_published_one(source: Source, apply: Apply, content: Content) -> None:
    """truck → automobile (9 → 1), bird → airplane (2 → 0), deer → horse (4 → 7), cat ↔ dog (3 ↔ 5)."""
    rows = content(apply("noise", cifar10(source), kind="asymmetric", map="cifar10", rate=0.4, per="class"))
    pairs = Counter((r["clean_label"], r["label"]) for r in rows if r["label"] != r["clean_label"])
    assert pairs == dict.fromkeys([(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)], 240)  # 40 % of 600 each


def test_a_map_takes_wnids_and_names(source: Source, apply: Apply, content: Content) -> None:
    by_name = apply("noise", source(), kind="asymmetric", map=PETS, rate=0.4)
    wnids = {"n02084071": "n02121620", "cat": "n02084071"}
    assert content(apply("noise", source(), kind="asymmetric", map=wnids, rate=0.4)) == content(by_name)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_cleaning_undoes_noise(source: Source, apply: Apply, content: Content, kind: dict[str, Any]) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET label = NULL WHERE size % 9 = 0")
    noisy = apply("noise", rows, rate=0.5, **kind)
    assert wrong(content(noisy))
    after = apply("clean", noisy)
    assert content(after) == content(rows)
    assert after.columns == rows.columns


def test_cleaning_undoes_shuffled_captions(source: Source, apply: Apply, content: Content) -> None:
    rows = source()
    rows.con.execute("UPDATE source SET caption = 'image ' || size WHERE size % 9 > 0")
    noisy = apply("noise", apply("shuffle_captions", rows, rate=0.5), rate=0.5)
    assert {row["caption"] for row in content(noisy)} <= {row["caption"] for row in content(rows)}
    assert [row["caption"] for row in content(noisy)] != [row["caption"] for row in content(rows)]
    assert content(apply("clean", noisy)) == content(rows)


def test_there_must_be_noise_to_clean(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="no clean_label and no clean_caption"):
        apply("clean", source())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "pair"}, "'rate' is missing"),
        ({"rate": 0.1, "map": PETS}, "'map' does not belong to `kind: symmetric`"),
        ({"kind": "pair", "rate": 0.1, "temperature": 2.0}, "'temperature' does not belong"),
        ({"kind": "sibling", "rate": 0.1, "temperature": 2.0}, "'temperature'(?s:.*)it takes parents"),
        ({"kind": "hierarchy", "rate": 0.1, "temperature": 0.0}, "temperature"),
        ({"kind": "instance", "file": "scores.csv", "true_label": "a"}, "'true_label' does not belong"),
        ({"kind": "asymmetric", "rate": 0.1}, "needs a `map`"),
        ({"kind": "asymmetric", "rate": 0.1, "map": {}}, "the map is empty"),
        (
            {"kind": "asymmetric", "rate": 0.1, "map": "cifar-10"},
            "no map 'cifar-10'(?s:.*)did you mean 'cifar10'",
        ),
        ({"kind": "asymmetric", "rate": 0.1, "map": "cifar10"}, "no class 'truck'"),
        (
            {"kind": "asymmetric", "rate": 0.1, "map": {"dog": "dgo"}},
            "no class 'dgo'(?s:.*)did you mean 'dog'",
        ),
        ({"kind": "asymmetric", "rate": 0.1, "map": {"dog": "n02084071"}}, "becomes itself"),
        ({"kind": "asymmetric", "rate": 0.1, "map": PETS | {"n02084071": "tench"}}, "mapped twice"),
        ({"kind": "sibling", "rate": 0.1}, "none of the 6 classes can become another"),
        ({"kind": "hierarchy", "rate": 0.1, "parents": "breeds"}, "the hierarchy 'breeds' does not have"),
        ({"kind": "confusion"}, "needs a `file`"),
        ({"kind": "instance"}, "needs a `file`"),
        ({"rate": 1.2}, "rate"),
    ],
)
def test_noise_refuses(source: Source, apply: Apply, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CurateError) as raised:
        apply("noise", source(), **arguments)
    assert isinstance(raised.value, RecipeError)
    assert raised.match(message)
    with pytest.raises(RecipeError):  # the plan says so too, before a row is read
        apply("noise", source(0, planning=True), **arguments)


@pytest.mark.parametrize("kind", ["sibling", "hierarchy"])
def test_noise_by_wordnet_needs_synsets(source: Source, apply: Apply, kind: str) -> None:
    rows = cifar10(source, 10)
    with pytest.raises(RecipeError, match="10 of 10 classes are no WordNet synsets"):
        apply("noise", rows, kind=kind, rate=0.1)
    doubled = replace(rows, known=(*source().classes, Class("another dog", "n02084071")))
    with pytest.raises(RecipeError, match="two classes are the synset n02084071"):
        apply("noise", doubled, kind=kind, rate=0.1)
