"""Accuracies and their intervals, against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from train.transfer.metrics import Score, scores, wilson


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
