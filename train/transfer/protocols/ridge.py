"""Ridge probe: least squares on frozen features in closed form; the fast variant of the linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from curate.errors import require
from train.transfer.features import Outcome, Subject
from train.transfer.protocols._model_selection import Choice, best, choices, merit
from train.transfer.protocols._probes import few_threads, ridges
from train.transfer.shots import Draw, folds
from train.transfer.tasks.task import Kind

LAMBDAS = tuple(np.logspace(-5, 4, 19).tolist())


@dataclass(frozen=True)
class Ridge:
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
    kind: ClassVar[Kind] = "classification"
    learns: ClassVar[bool] = True
    frozen: ClassVar[bool] = True
    chance_at_full: ClassVar[bool] = False

    lambdas: tuple[float, ...] = LAMBDAS
    fixed_lambda: float = 10.0
    layer: str | None = None

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        require(min(self.lambdas, default=0) > 0, "lambdas", self.lambdas, "numbers above 0")
        require(self.fixed_lambda > 0, "fixed_lambda", self.fixed_lambda, "above 0")

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Fit on a draw and answer on the whole test set."""
        features = subject.features(self.layer)
        features_KD = features.train[torch.from_numpy(drawn.rows).to(subject.device)]
        targets = torch.from_numpy(drawn.targets).to(subject.device)
        distinct = len(np.unique(drawn.rows))
        many = distinct > subject.classes  # else each class has one image
        tried = self.lambdas if many else (self.fixed_lambda,)
        with few_threads(features_KD.numel() * subject.classes):
            found = ridges(features_KD, targets, tried, classes=subject.classes)
            if distinct == len(drawn):
                merits = [merit(left_out, targets, subject.task.metric) for left_out in found.left_out]
                chosen = max(range(len(tried)), key=lambda i: merits[i])
            else:  # of an image that was drawn again, leaving one out leaves the others in
                chosen = best(
                    choices(features_KD, targets, folds(drawn, count=5)), self._answers, subject.task.metric
                )
        probe = found.probes[chosen if many else 0]
        select = "validation" if many else "fixed"
        return subject.outcome(probe.logits(features.test), {"lambda": probe.strength}, select)

    def _answers(self, choice: Choice) -> list[Tensor]:
        classes = (
            int(choice.fit_targets.max()) + 1 if choice.fit_targets.ndim == 1 else choice.fit_targets.shape[1]
        )
        found = ridges(choice.fit, choice.fit_targets, self.lambdas, classes=classes)
        return [probe.logits(choice.held) for probe in found.probes]


PROTOCOLS = (Ridge,)
