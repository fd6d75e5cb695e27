"""Metrics of a classifier, with an interval over the test images."""

# N test images, C classes

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from train.transfer.metrics.average_precision import Rule, class_precisions, mean_of_known

Z = 1.959964  # half of a 95 % interval, in standard deviations
RESAMPLES = 200  # of the test images, for the interval of a metric that has no formula
RULES: dict[str, Rule] = {"map11": "11 points", "map": "area"}


@dataclass(frozen=True)
class Score:
    """A metric's value, 0..1, over n test images, with its 95 % interval."""

    metric: str
    value: float
    n: int
    ci_low: float
    ci_high: float

    @classmethod
    def bootstrapped(cls, metric: str, value: Callable[[np.ndarray | None], float], n: int) -> Score:
        """Return a score whose interval is that of the bootstrap over n images.

        Args:
            metric: its name.
            value: of weights_N, how often each image counts; None for once each.
            n: test images.
        """
        return cls(metric, value(None), n, *bootstrap(value, n))


def scores(logits_NC: np.ndarray, targets: np.ndarray, accepted_NC: np.ndarray | None = None) -> list[Score]:
    """Return every metric of a classifier's logits.

    With one label an image: `top1`; `top5` where there are more than five classes; `mean_per_class`, which is
    balanced accuracy; and `real_top1` where there are accepted labels. With several: `map11` and `map`.

    Args:
        logits_NC: the larger, the likelier. Equal ones are ranked by label.
        targets: int64 targets_N, or int8 targets_NC.
        accepted_NC: which labels a second look found right.
    """
    if targets.ndim == 2:
        return [mean_precision(name, logits_NC, targets) for name in ("map11", "map")]
    rank_N = ranks(logits_NC, targets)
    right_N = rank_N < 1
    metrics = [share("top1", right_N)]
    if logits_NC.shape[1] > 5:
        metrics.append(share("top5", rank_N < 5))
    metrics.append(mean_per_class(right_N, targets))
    if accepted_NC is not None:
        judged_N = accepted_NC.any(axis=1)
        predicted_N = logits_NC.argmax(axis=1)
        if judged_N.any():
            accepted_N = accepted_NC[np.arange(len(predicted_N)), predicted_N]
            metrics.append(share("real_top1", accepted_N[judged_N]))
    return metrics


def ranks(logits_NC: np.ndarray, targets_N: np.ndarray) -> np.ndarray:
    """Return how many classes come before the true one, N; of equal ones the smaller label comes first."""
    own_N1 = np.take_along_axis(logits_NC, targets_N[:, None], axis=1)
    labels_C = np.arange(logits_NC.shape[1])
    before_NC = (logits_NC > own_N1) | ((logits_NC == own_N1) & (labels_C < targets_N[:, None]))
    return before_NC.sum(axis=1)


def share(metric: str, right_N: np.ndarray) -> Score:
    """Return the share of right answers, with Wilson's interval."""
    n, value = len(right_N), float(right_N.mean())
    return Score(metric, value, n, *wilson(value, n))


def mean_per_class(right_N: np.ndarray, labels_N: np.ndarray) -> Score:
    """Return the mean of the classes' accuracies.

    The interval is the normal one for a stratified mean. Each class's variance is taken at
    (right + 1/2) / (n + 1), so that a class of few images, all right, does not count as certain.
    """
    n_C = np.bincount(labels_N)
    right_C = np.bincount(labels_N, weights=right_N)
    n_C, right_C = n_C[n_C > 0], right_C[n_C > 0]
    value = float((right_C / n_C).mean())
    p_C = (right_C + 0.5) / (n_C + 1)
    half = Z * math.sqrt((p_C * (1 - p_C) / n_C).sum()) / len(n_C)
    return Score("mean_per_class", value, len(right_N), max(value - half, 0.0), min(value + half, 1.0))


def mean_precision(metric: str, scores_NC: np.ndarray, targets_NC: np.ndarray) -> Score:
    """Return the mean of the classes' average precisions; `metric` is "map11" or "map"."""

    def value(weights_N: np.ndarray | None) -> float:
        return mean_of_known(class_precisions(scores_NC, targets_NC, RULES[metric], weights_N))

    return Score.bootstrapped(metric, value, len(targets_NC))


def bootstrap(value: Callable[[np.ndarray | None], float], n: int) -> tuple[float, float]:
    """Return the 95 % interval of a value over n images, by drawing them again with replacement.

    It is widened to hold the value itself where all draws lie on one side of it.

    Args:
        value: of weights_N, how often each image counts; None for once each.

    Source: Efron, Ann. Stat. 7 (1979).
    """
    generator = np.random.default_rng(0)
    drawn = [value(generator.multinomial(n, np.full(n, 1 / n)).astype(float)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    whole = value(None)
    return min(float(low), whole), max(float(high), whole)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return min(low, share), max(high, share)  # rounding may leave a share of 0 or 1 outside
