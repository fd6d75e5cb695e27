"""Average precision as PASCAL VOC defines it: at eleven recalls (2007) or the area under the curve (from 2010)."""

# N answers, C classes

from __future__ import annotations

from typing import Literal

import numpy as np

Rule = Literal["11 points", "area"]

# The devkit's own steps. The fourth is 0.30000000000000004, so that a recall of exactly 3/10 is below it; the
# published numbers have that in them, and exact tenths would give others.
TENTHS = np.arange(0.0, 1.1, 0.1)


def average_precision(recall_N: np.ndarray, precision_N: np.ndarray, rule: Rule) -> float:
    """Return the average precision of a curve, 0..1.

    Args:
        recall_N: after each answer, the most confident first.
        precision_N: likewise.
        rule: "11 points" averages the best precision at a recall of 0, 0.1, … 1 or more; "area" integrates the
            best precision at each recall or more.

    Source: the VOC devkit's VOCevaldet.m and VOCap.m; Everingham et al., IJCV 2010.
    """
    if not len(recall_N):
        return 0.0
    best_N = np.maximum.accumulate(precision_N[::-1])[::-1]  # at this recall or more
    if rule == "11 points":
        at = np.searchsorted(recall_N, TENTHS)  # the first answer whose recall is that or more
        return float(np.append(best_N, 0.0)[at].sum() / len(TENTHS))
    gained_N = np.diff(recall_N, prepend=0.0)
    return float((gained_N * best_N).sum())


def ranked_precision(
    confidences_N: np.ndarray,
    right_N: np.ndarray,
    truths: float,
    rule: Rule,
    weights_N: np.ndarray | None = None,
) -> float:
    """Return the average precision of answers, 0..1; NaN where there is nothing to find.

    Args:
        confidences_N: of the answers; equal ones stay in their order, as in the devkit.
        right_N: bool, whether each is right.
        truths: how many there are to find.
        weights_N: how often each answer counts; once by default.
    """
    if truths <= 0:
        return float("nan")
    order_N = np.argsort(-confidences_N, kind="stable")
    weights_N = np.ones(len(right_N)) if weights_N is None else weights_N[order_N]
    hits_N = np.cumsum(np.where(right_N[order_N], weights_N, 0.0))
    answers_N = np.cumsum(weights_N)
    counted_N = answers_N > 0
    recall_N, answers_N = hits_N[counted_N] / truths, answers_N[counted_N]
    return average_precision(recall_N, hits_N[counted_N] / answers_N, rule)


def class_precisions(
    scores_NC: np.ndarray, targets_NC: np.ndarray, rule: Rule, weights_N: np.ndarray | None = None
) -> np.ndarray:
    """Return the average precision of each class over images, C; NaN of a class that no image has.

    Args:
        scores_NC: the larger, the likelier.
        targets_NC: 1 (has it), 0 (has not), -1 (not counted).
        weights_N: how often each image counts; once by default.
    """
    found = []
    for scores_N, targets_N in zip(scores_NC.T, targets_NC.T, strict=True):
        counted = targets_N >= 0
        right = targets_N[counted] == 1
        weights = None if weights_N is None else weights_N[counted]
        truths = float(right.sum() if weights is None else weights[right].sum())
        found.append(ranked_precision(scores_N[counted], right, truths, rule, weights))
    return np.array(found)


def mean_of_known(values_C: np.ndarray) -> float:
    """Return the mean of those that are numbers; NaN where none is, as when images are drawn that hold no object."""
    known = values_C[~np.isnan(values_C)]
    return float(known.mean()) if len(known) else float("nan")
