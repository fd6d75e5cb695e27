"""Accuracies and their intervals, against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from train.transfer.metrics.average_precision import class_precisions, ranked_precision
from train.transfer.metrics.classification import Score, scores, wilson


def said(guesses: np.ndarray, labels: np.ndarray) -> dict[str, Score]:
    """Return the scores of answers that name one class each."""
    logits = np.eye(labels.max() + 2)[guesses]
    return {score.metric: score for score in scores(logits, labels)}


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (431, 599), (1, 100_000)])
def test_wilson_interval_is_that_of_scipy(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_accuracies_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [100, 30, 10, 3])
    guesses = np.where(generator.random(143) < 0.6, labels, generator.integers(0, 4, 143))
    found = said(guesses, labels)
    top1, per_class = found["top1"], found["mean_per_class"]
    assert top1.value == pytest.approx(accuracy_score(labels, guesses))
    assert per_class.value == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert abs(top1.value - per_class.value) > 0.01
    for score in (top1, per_class):
        assert score.n == 143
        assert score.ci_low < score.value < score.ci_high


def test_interval_of_the_mean_per_class_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(0.2, 1.0, 15)
    labels = np.repeat(np.arange(15), 10)
    inside = 0
    for _ in range(500):
        right = generator.random(150) < truth[labels]
        score = said(np.where(right, labels, 15), labels)["mean_per_class"]
        inside += score.ci_low <= truth.mean() <= score.ci_high
    assert 0.93 < inside / 500 < 0.99  # 95 % expected, standard deviation 1 point; it is made a little wide


def test_all_right_is_not_called_certain() -> None:
    labels = np.repeat(np.arange(3), 4)
    for score in said(labels, labels).values():
        assert (score.value, score.ci_high) == (1.0, 1.0)
        assert score.ci_low < 0.95


def test_top5_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 20, 300)
    logits = generator.normal(size=(300, 20)) + 1.5 * np.eye(20)[labels]
    found = {score.metric: score for score in scores(logits, labels)}
    assert found["top5"].value == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(20)))
    assert found["top1"].value < found["top5"].value < 1
    assert "top5" not in {score.metric for score in scores(logits[:, :5], labels % 5)}


def test_a_second_look_counts_any_label_it_found_right_and_passes_over_images_without() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]]
    accepted = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=bool)
    found = {score.metric: score for score in scores(logits, np.array([1, 1, 2, 0]), accepted)}
    assert (found["real_top1"].value, found["real_top1"].n) == (pytest.approx(2 / 3), 3)
    assert found["top1"].value == 0.75


def devkit_precision(confidences: np.ndarray, right: np.ndarray, rule: str) -> float:
    """Return VOCap's number, written as the devkit has it: loops and all."""
    order = sorted(range(len(right)), key=lambda i: -confidences[i])
    hits, precision, recall = 0, [], []
    for count, i in enumerate(order, start=1):
        hits += bool(right[i])
        precision.append(hits / count)
        recall.append(hits / right.sum())
    if rule == "11 points":
        tops = [
            max([p for p, r in zip(precision, recall, strict=True) if r >= t], default=0)
            for t in np.arange(0, 1.1, 0.1)
        ]
        return sum(tops) / 11
    area, before = 0.0, 0.0
    for i, r in enumerate(recall):
        area += (r - before) * max(precision[i:])
        before = r
    return area


@pytest.mark.parametrize("rule", ["11 points", "area"])
@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_devkits(seed: int, rule: str) -> None:
    generator = np.random.default_rng(seed)
    right = generator.random(80) < 0.3
    confidences = generator.random(80) + 0.4 * right
    expected = devkit_precision(confidences, right, rule)
    assert 0.2 < expected < 0.95
    assert ranked_precision(confidences, right, right.sum(), rule) == pytest.approx(expected)  # type: ignore[arg-type]


def test_weights_count_an_image_as_often_as_it_was_drawn() -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(30, 2)), (generator.random((30, 2)) < 0.5).astype(np.int8)
    times = generator.integers(0, 3, 30)
    again = class_precisions(logits.repeat(times, axis=0), targets.repeat(times, axis=0), "area")
    assert class_precisions(logits, targets, "area", times.astype(float)) == pytest.approx(again, abs=0.03)


def test_labels_that_are_not_counted_change_nothing() -> None:
    generator = np.random.default_rng(0)
    logits, targets = generator.normal(size=(30, 2)), (generator.random((30, 2)) < 0.5).astype(np.int8)
    more = np.concatenate([targets, np.full((10, 2), -1, np.int8)])
    padded = np.concatenate([logits, 9 * generator.normal(size=(10, 2))])
    for rule in ("11 points", "area"):
        assert np.array_equal(class_precisions(padded, more, rule), class_precisions(logits, targets, rule))  # type: ignore[arg-type]


def test_interval_of_a_mean_precision_holds_it_and_narrows_with_images() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for count in (50, 800):
        targets = (generator.random((count, 4)) < 0.4).astype(np.int8)
        found = scores(generator.normal(size=(count, 4)) + targets, targets)
        assert [score.metric for score in found] == ["map11", "map"]
        for score in found:
            assert score.ci_low < score.value < score.ci_high
        widths.append(found[1].ci_high - found[1].ci_low)
    assert widths[1] < widths[0] / 2
