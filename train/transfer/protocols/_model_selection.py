"""Model selection: the hyperparameters that are best by the task's own metric, ties by the loss."""

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
from train.transfer.protocols._probes import classification_loss
from train.transfer.shots import Fold
from train.transfer.tasks.task import Metric

ValidationScore = tuple[float, float]  # the metric, and the negated loss: the larger, the better
WORST: ValidationScore = (-1.0, -math.inf)


@dataclass(frozen=True)
class ValidationSplit:
    """Features to fit on, and held-out features to select by."""

    train: Tensor
    train_targets: Tensor
    validation: Tensor
    validation_targets: Tensor


def validation_splits(features_KD: Tensor, targets: Tensor, folds: Sequence[Fold]) -> list[ValidationSplit]:
    """Return the features and targets of both sides of each fold of a draw."""
    splits = []
    for fold in folds:
        train, validation = (
            torch.from_numpy(rows).to(targets.device) for rows in (fold.train, fold.validation)
        )
        splits.append(
            ValidationSplit(features_KD[train], targets[train], features_KD[validation], targets[validation])
        )
    return splits


def validation_score(logits_NC: Tensor, targets: Tensor, metric: Metric) -> ValidationScore:
    """Return the score of predictions; the worst where they are not finite."""
    if not logits_NC.isfinite().all():
        return WORST
    scores_NC, true = logits_NC.double().cpu().numpy(), targets.cpu().numpy()
    return (_value(scores_NC, true, metric), -classification_loss(logits_NC.double(), targets).item())


def _value(scores_NC: np.ndarray, targets: np.ndarray, metric: Metric) -> float:
    if targets.ndim == 2:
        value = mean_of_known(class_precisions(scores_NC, targets, RULES[metric]))
        return 0.0 if math.isnan(value) else value
    right_N = ranks(scores_NC, targets) < 1
    return mean_per_class(right_N, targets).value if metric == "mean_per_class" else float(right_N.mean())


def select_best(
    splits: Sequence[ValidationSplit],
    predict: Callable[[ValidationSplit], Iterable[Tensor]],
    metric: Metric,
) -> int:
    """Return which of several settings does best over all splits, each weighted by its validation images.

    Args:
        splits: the folds.
        predict: returns, for a split, the logits of each setting for its validation images.
        metric: to be maximised.
    """
    weight_F = np.array([len(split.validation) for split in splits])
    scores_FS2 = np.array(
        [
            [validation_score(logits_NC, split.validation_targets, metric) for logits_NC in predict(split)]
            for split in splits
        ]
    )
    values_S, losses_S = np.einsum("f,fsm->ms", weight_F, scores_FS2)
    return max(range(len(values_S)), key=lambda i: (values_S[i], losses_S[i]))
