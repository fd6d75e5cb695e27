"""What a classifier scored, with an interval over the test images."""

# N test images, C classes

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959964  # half of a 95 % interval, in standard deviations


@dataclass(frozen=True)
class Score:
    """A metric's value, 0..1, over n test images, with its 95 % interval."""

    metric: str
    value: float
    n: int
    ci_low: float
    ci_high: float


def scores(predictions_N: np.ndarray, labels_N: np.ndarray) -> list[Score]:
    """Return top-1 accuracy and the mean of the classes' accuracies."""
    right_N = predictions_N == labels_N
    return [top1(right_N), mean_per_class(right_N, labels_N)]


def top1(right_N: np.ndarray) -> Score:
    """Return the share of right answers, with Wilson's interval."""
    n, value = len(right_N), float(right_N.mean())
    return Score("top1", value, n, *wilson(value, n))


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


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return min(max(centre - half, 0.0), share), max(
        min(centre + half, 1.0), share
    )  # of 0 and 1, but for rounding
