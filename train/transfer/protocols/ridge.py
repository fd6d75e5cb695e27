"""Ridge probe: least squares on frozen features in closed form; the fast variant of the linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from curate.errors import require
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.protocols._base import TransferProtocol
from train.transfer.protocols._model_selection import (
    ValidationSplit,
    select_best,
    validation_score,
    validation_splits,
)
from train.transfer.protocols._probes import fit_ridges, limit_threads
from train.transfer.shots import TrainSubset, make_folds

LAMBDAS = tuple(np.logspace(-5, 4, 19).tolist())


@dataclass(frozen=True)
class Ridge(TransferProtocol):
    """The protocol: targets of 1 and -1, lambda chosen by leaving each image of the draw out once, in closed form.

    All lambdas come from one eigendecomposition, so it takes a hundredth of the time of `linear`. One shot leaves no
    image of a class to learn from when it is left out, and takes `fixed_lambda`. Of a draw with replacement, folds are
    held out instead.

    Args:
        lambdas: penalties that are tried, on squared weights of standardised features, a share of the images.
        fixed_lambda: the one where nothing can be left out.
        layer: a module of the backbone whose output is taken; its own features by default.
    """

    name: ClassVar[str] = "ridge"

    lambdas: tuple[float, ...] = LAMBDAS
    fixed_lambda: float = 10.0
    layer: str | None = None

    def check(self) -> None:
        """Refuse settings that cannot be meant."""
        require(min(self.lambdas, default=0) > 0, "lambdas", self.lambdas, "numbers above 0")
        require(self.fixed_lambda > 0, "fixed_lambda", self.fixed_lambda, "above 0")

    def measure(self, features: RunFeatures, subset: TrainSubset) -> ProtocolResult:
        """Fit on a draw and answer on the whole test set."""
        features_KD, targets = features.of_subset(subset, self.layer)
        distinct = len(np.unique(subset.rows))
        selects = distinct > features.classes  # else each class has one image
        lambdas = self.lambdas if selects else (self.fixed_lambda,)
        metric = features.task.metric
        with limit_threads(features_KD.numel() * features.classes):
            fits = fit_ridges(features_KD, targets, lambdas, classes=features.classes)
            if distinct == len(subset):
                scores = [validation_score(logits_NC, targets, metric) for logits_NC in fits.left_out]
                best = max(range(len(lambdas)), key=lambda i: scores[i])
            else:  # leaving one copy of an image out leaves its other copies in, so folds are held out
                folds = make_folds(subset, count=5)
                best = select_best(validation_splits(features_KD, targets, folds), self._predict, metric)
        probe = fits.probes[best if selects else 0]
        select = "validation" if selects else "fixed"
        return features.result(
            probe.logits(features.frozen(self.layer).test), {"lambda": probe.strength}, select
        )

    def _predict(self, split: ValidationSplit) -> list[Tensor]:
        targets = split.train_targets
        classes = int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]
        fits = fit_ridges(split.train, targets, self.lambdas, classes=classes)
        return [probe.logits(split.validation) for probe in fits.probes]


PROTOCOLS = (Ridge,)
