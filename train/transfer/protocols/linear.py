"""Linear probe: L2-regularised logistic regression, by L-BFGS, on frozen features."""

# K images of a draw, D features, C classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from curate.errors import require
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.protocols._base import TransferProtocol
from train.transfer.protocols._model_selection import ValidationSplit, select_best, validation_splits
from train.transfer.protocols._probes import Probe, limit_threads, logistic_path
from train.transfer.shots import TrainSubset, make_folds

PUBLISHED = tuple(np.logspace(-6, 5, 45).tolist())  # Kornblith et al., CVPR 2019; SimCLR; DINOv2
COARSE = PUBLISHED[::4]  # its decades: 12 of the 45

# scikit-learn's default. At large C it stops short of the optimum by half a point of accuracy, a fraction of what
# a few images to choose by can tell, in a quarter of the time; so it serves to choose C and not to measure.
TOLERANCE_TO_CHOOSE = 1e-4


@dataclass(frozen=True)
class Linear(TransferProtocol):
    """The protocol: choose C by validation inside the draw, refit on all of it, test once.

    C is 1 / the weight of the L2 penalty on a sum of losses, as in scikit-learn. Features are standardised by
    the images fitted on. Validation is every fold in turn; from `one_fold_from` images on, one fold alone, a
    fifth of the draw. One shot leaves no image to choose by, and takes `fixed_c`. Where an image may have several
    labels, it is one regression a class.

    Args:
        grid: the values of C: the 45 published ones, of which the decades are tried and then the six around the
            best ("refined") or all ("published"); or the decades alone ("coarse").
        fixed_c: C where nothing can be held out: the default of scikit-learn.
        fold_count: into how many parts the draw is cut.
        one_fold_from: images of a draw from which one fold is enough.
        max_iterations: of L-BFGS for each C, starting from the solution of the C before.
        layer: a module of the backbone whose output is taken; its own features by default.
        select: "test" chooses C by the test set itself, which flatters; every such row says so.
    """

    name: ClassVar[str] = "linear"
    chance_at_full: ClassVar[bool] = True

    grid: Literal["refined", "published", "coarse"] = "refined"
    fixed_c: float = 1.0
    fold_count: int = 5
    one_fold_from: int = 1000
    max_iterations: int = 1000
    layer: str | None = None
    select: Literal["validation", "test"] = "validation"

    def check(self) -> None:
        """Refuse settings that cannot be meant."""
        require(self.fixed_c > 0, "fixed_c", self.fixed_c, "above 0")
        require(self.fold_count > 1, "fold_count", self.fold_count, "2 or more")
        require(self.max_iterations > 0, "max_iterations", self.max_iterations, "1 or more")

    def measure(self, features: RunFeatures, subset: TrainSubset) -> ProtocolResult:
        """Fit a probe to a draw and score the whole test set."""
        probe, select = self.fit(features, subset)
        logits_NC = probe.logits(features.frozen(self.layer).test)
        return features.result(logits_NC, {"c": probe.strength}, select)

    def fit(self, features: RunFeatures, subset: TrainSubset) -> tuple[Probe, str]:
        """Return the probe of a draw, and how its C was selected."""
        features_KD, targets = features.of_subset(subset, self.layer)
        with limit_threads(features_KD.numel() * features.classes):
            splits = self._splits(features, features_KD, targets, subset)
            limit, classes = self.max_iterations, features.classes
            c = self._select_c(splits, features) if splits else self.fixed_c
            (probe,) = logistic_path(features_KD, targets, [c], classes=classes, max_iterations=limit)
        return probe, self.select if splits else "fixed"

    def _splits(
        self, features: RunFeatures, features_KD: Tensor, targets: Tensor, subset: TrainSubset
    ) -> list[ValidationSplit]:
        """Return what each C is fitted to and validated on."""
        if self.select == "test":
            test = torch.from_numpy(features.images.test.targets).to(targets.device)
            return [ValidationSplit(features_KD, targets, features.frozen(self.layer).test, test)]
        folds = make_folds(subset, count=self.fold_count)
        return validation_splits(
            features_KD, targets, folds[:1] if len(subset) >= self.one_fold_from else folds
        )

    def _select_c(self, splits: Sequence[ValidationSplit], features: RunFeatures) -> float:
        """Return the C that does best over the splits."""
        cs = PUBLISHED if self.grid == "published" else COARSE
        c = cs[self._best(splits, cs, features)]
        if self.grid != "refined":
            return c
        at = PUBLISHED.index(c)
        around = PUBLISHED[max(at - 3, 0) : at + 4]
        return around[self._best(splits, around, features)]

    def _best(self, splits: Sequence[ValidationSplit], cs: Sequence[float], features: RunFeatures) -> int:
        def predict(split: ValidationSplit) -> Iterator[Tensor]:
            probes = logistic_path(
                split.train,
                split.train_targets,
                cs,
                classes=features.classes,
                max_iterations=self.max_iterations,
                tolerance=TOLERANCE_TO_CHOOSE,
            )
            return (probe.logits(split.validation) for probe in probes)

        return select_best(splits, predict, features.task.metric)


PROTOCOLS = (Linear,)
