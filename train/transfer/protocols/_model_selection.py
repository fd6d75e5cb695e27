"""Choosing hyperparameters: the best by the task's own metric, ties by the loss."""

# N images, C classes

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from train.transfer.metrics.average_precision import class_precisions, mean_of_known
from train.transfer.metrics.classification import RULES, mean_per_class, ranks
from train.transfer.protocols._probes import loss
from train.transfer.shots import Fold
from train.transfer.tasks.task import Metric

Merit = tuple[float, float]  # the metric, and the negated loss: the larger, the better
WORST: Merit = (-1.0, -math.inf)


@dataclass(frozen=True)
class Choice:
    """Features to fit on, and others to choose by."""

    fit: Tensor
    fit_targets: Tensor
    held: Tensor
    held_targets: Tensor


def choices(features_KD: Tensor, targets: Tensor, folds: Sequence[Fold]) -> list[Choice]:
    """Return what folds of a draw fit on and choose by."""
    parts = [[torch.from_numpy(rows).to(targets.device) for rows in (one.fit, one.choose)] for one in folds]
    return [Choice(features_KD[a], targets[a], features_KD[b], targets[b]) for a, b in parts]


def merit(logits_NC: Tensor, targets: Tensor, metric: Metric) -> Merit:
    """Return how good answers are; the worst where they are no numbers."""
    if not logits_NC.isfinite().all():
        return WORST
    answers_NC, true = logits_NC.double().cpu().numpy(), targets.cpu().numpy()
    return (_value(answers_NC, true, metric), -loss(logits_NC.double(), targets).item())


def _value(answers_NC: np.ndarray, targets: np.ndarray, metric: Metric) -> float:
    if targets.ndim == 2:
        value = mean_of_known(class_precisions(answers_NC, targets, RULES[metric]))
        return 0.0 if math.isnan(value) else value
    right_N = ranks(answers_NC, targets) < 1
    return mean_per_class(right_N, targets).value if metric == "mean_per_class" else float(right_N.mean())


def best(choices: Sequence[Choice], answers: Callable[[Choice], Iterable[Tensor]], metric: Metric) -> int:
    """Return which of several settings does best over all choices, each weighing as many images as it holds out.

    Args:
        choices: the folds.
        answers: gives, for a fold, the logits of each setting for what is held out.
        metric: what is to be large.
    """
    weight_F = np.array([len(choice.held) for choice in choices])
    merits_FS2 = np.array([[merit(one, c.held_targets, metric) for one in answers(c)] for c in choices])
    values_S, losses_S = np.einsum("f,fsm->ms", weight_F, merits_FS2)
    return max(range(len(values_S)), key=lambda i: (values_S[i], losses_S[i]))
