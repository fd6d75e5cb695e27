"""Noise among neighbours in WordNet, against NLTK's siblings and a brute-force matrix of distances."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import chisquare

from curate.ops._noise.tree_distances import tree_distances
from curate.rows.manifest import Class
from curate.rows.relation import Rows
from curate.wordnet import nouns
from curate.wordnet.makers import DEBIAN
from curate.wordnet.trees import tree

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
LOWEST_P = 1e-5  # below it falls one fair draw in a hundred thousand; there are some hundred of them here
# A mixture of near and far ones, inner nodes among them: dog, cat, carnivore and animal are above others.
ANIMAL, DOG, CARNIVORE = "n00015388", "n02084071", "n02075296"


@pytest.fixture(scope="module")
def wnids() -> list[str]:
    """Fifty classes: dogs, cats and vehicles, and six that are above others of them."""
    leaves = [*sorted(nouns().below([DOG]))[5:150:6], *sorted(nouns().below(["n02120997"]))[3:25:3]]
    things = sorted(nouns().below(["n04524313"]))[::40]
    chosen = [ANIMAL, DOG, CARNIVORE, "n02121620", "n04524313", "n00001740", *leaves, *things]
    return list(dict.fromkeys(chosen))[:50]


def rows_of(source: Source, count: int, wnids: list[str]) -> Rows:
    rows = source(count)
    rows.con.execute(f"UPDATE source SET label = (size - 1000) % {len(wnids)}")
    return replace(rows, known=tuple(Class(wnid, wnid) for wnid in wnids))


def first_path(wnid: str) -> list[str]:
    path = [wnid]
    while above := nouns().parents(path[-1]):
        path.append(above[0])
    return path


def distance(a: str, b: str) -> int:
    """Count the edges from a to b along first parents, by walking both up."""
    up, other = first_path(a), first_path(b)
    common = next(node for node in up if node in other)
    return up.index(common) + other.index(common)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_hierarchical_noise_is_drawn_by_distance(
    source: Source, apply: Apply, content: Content, wnids: list[str], temperature: float
) -> None:
    assert len(wnids) == 50
    rows = rows_of(source, 100_000, wnids)
    pairs: dict[int, Counter[int]] = defaultdict(Counter)
    for row in content(apply("noise", rows, kind="hierarchy", rate=1.0, temperature=temperature)):
        pairs[row["clean_label"]][row["label"]] += 1
    for true, found in pairs.items():
        assert true not in found
        weights = [
            0.0 if i == true else math.exp(-distance(wnids[true], wnid) / temperature)
            for i, wnid in enumerate(wnids)
        ]
        expected = [2000 * weight / sum(weights) for weight in weights]
        often = [i for i, count in enumerate(expected) if count >= 5]  # where chi-square holds
        rest = 2000 - sum(expected[i] for i in often)
        counts = [found[i] for i in often]
        lumped = [2000 - sum(counts)] if rest > 1 else []
        if not lumped:  # too few to test: at most ten times what is expected, and 20
            assert 2000 - sum(counts) < 20
            scale = sum(counts) / sum(expected[i] for i in often)
            means = [expected[i] * scale for i in often]
        else:
            means = [*(expected[i] for i in often), rest]
        assert len(counts) + len(lumped) > 1 or counts[0] > 1900
        assert chisquare([*counts, *lumped], means).pvalue > LOWEST_P


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.05, 1.0, 1e6])
def test_weights_are_exact_at_any_temperature(wnids: list[str], temperature: float) -> None:
    """What is laid out to draw from, multiplied out, is the matrix; 1e-9 of relative error is allowed."""
    found = tree_distances(tree("first"), wnids, temperature)
    for true, wnid in enumerate(wnids):
        probability = Counter[int]()
        total = sum(weight for _, weight in found.turns[true])
        for turn, weight in found.turns[true]:
            depth_total = sum(w for _, w in found.depths[turn])
            for number, depth_weight in found.depths[turn]:
                ring = found.rings[number]
                for at in range(ring.size):
                    place = ring.first + at + (ring.skip if at >= ring.gap else 0)
                    probability[found.order[place]] += weight / total * depth_weight / depth_total / ring.size
        near = min(distance(wnid, other) for other in wnids if other != wnid)
        weights = [
            0.0 if i == true else math.exp(-(distance(wnid, other) - near) / temperature)
            for i, other in enumerate(wnids)
        ]
        for i, weight in enumerate(weights):
            assert probability[i] == pytest.approx(weight / sum(weights), rel=1e-9, abs=1e-12)


def test_low_temperature_takes_the_nearest_and_high_is_uniform(
    source: Source, apply: Apply, content: Content, wnids: list[str]
) -> None:
    rows = rows_of(source, 20_000, wnids)
    mean = []
    for temperature in (0.01, 1.0, 1e6):
        read = content(apply("noise", rows, kind="hierarchy", rate=1.0, temperature=temperature))
        apart = [distance(wnids[row["clean_label"]], wnids[row["label"]]) for row in read]
        mean.append(sum(apart) / len(apart))
        if temperature == 0.01:
            nearest = [min(distance(a, b) for b in wnids if b != a) for a in wnids]
            assert apart == [nearest[row["clean_label"]] for row in read]
    assert all(a < b for a, b in pairwise(mean))
    pairs = [distance(a, b) for a in wnids for b in wnids if a != b]
    assert mean[-1] == pytest.approx(sum(pairs) / len(pairs), rel=0.02)


def test_a_sibling_has_the_same_parent_and_each_is_as_likely(
    source: Source, apply: Apply, content: Content, shared: Path
) -> None:
    """Parents by NLTK: the first hypernym on the way that WordNet's file lists first."""
    with (shared / "data/metadata/imagenet1k_classes.csv").open() as lines:
        wnids = [row["wnid"] for row in csv.DictReader(lines)]
    lines_of = (DEBIAN / "data.noun").read_text(encoding="utf-8").splitlines() if DEBIAN.is_dir() else []
    if not lines_of:
        pytest.skip("no WordNet 3.0 database: apt-get install wordnet-base")
    line = {f"n{text[:8]}": text.split("|")[0].split() for text in lines_of}
    parent = {
        wnid: next(f"n{line[wnid][i + 1]}" for i, x in enumerate(line[wnid]) if x in ("@", "@i"))
        for wnid in wnids
    }
    families = Counter(parent.values())
    read = content(apply("noise", rows_of(source, 100_000, wnids), kind="sibling", rate=1.0))
    hit = [row for row in read if row["label"] != row["clean_label"]]
    alone = {row["clean_label"] for row in read} - {row["clean_label"] for row in hit}
    assert alone == {i for i, wnid in enumerate(wnids) if families[parent[wnid]] == 1}
    assert len(hit) == sum(100 for wnid in wnids if families[parent[wnid]] > 1)
    assert all(parent[wnids[row["label"]]] == parent[wnids[row["clean_label"]]] for row in hit)
    [(most, size)] = families.most_common(1)
    given = Counter(row["label"] for row in hit if parent[wnids[row["clean_label"]]] == most)
    assert len(given) == size >= 18
    assert chisquare(list(given.values())).pvalue > LOWEST_P


def test_siblings_are_those_of_the_chosen_parents(source: Source, apply: Apply, content: Content) -> None:
    """Dalmatian and others: BREEDS, Huh et al. and the first parents part some dogs differently."""
    chosen = sorted(nouns().below([DOG]))
    both = [w for w in chosen if w in tree("breeds")][:60]
    found = {}
    for parents in ("first", "huh2016", "breeds"):
        read = content(apply("noise", rows_of(source, 6000, both), kind="sibling", rate=1.0, parents=parents))
        pairs = {(both[r["clean_label"]], both[r["label"]]) for r in read if r["label"] != r["clean_label"]}
        assert pairs
        assert all(tree(parents).parent(a) == tree(parents).parent(b) for a, b in pairs)  # type: ignore[arg-type]
        found[parents] = pairs
    assert found["breeds"] != found["first"]
