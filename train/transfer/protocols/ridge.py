"""Ridge probe: least squares on frozen features in closed form; the fast variant of the linear probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from train.options import require
from train.transfer.choosing import merit
from train.transfer.probes import few_threads, ridges
from train.transfer.shots import Draw
from train.transfer.subjects import Outcome, Subject
from train.transfer.tasks import Kind

LAMBDAS = tuple(np.logspace(-5, 4, 19).tolist())


@dataclass(frozen=True)
class Ridge:
    """The protocol: targets of 1 and -1, lambda chosen by leaving each image of the draw out once, in closed form.

    All lambdas come from one eigendecomposition, so it takes a hundredth of the time of `linear`. One shot leaves no
    image of a class to learn from when it is left out, and takes `fixed_lambda`.

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
        many = len(np.unique(drawn.rows)) > subject.classes  # else each class has one image
        tried = self.lambdas if many else (self.fixed_lambda,)
        with few_threads(features_KD.numel() * subject.classes):
            found = ridges(features_KD, targets, tried, classes=subject.classes)
        merits = [merit(left_out, targets, subject.task.metric) for left_out in found.left_out]
        probe = found.probes[max(range(len(tried)), key=lambda i: merits[i])]
        select = "validation" if many else "fixed"
        return subject.outcome(probe.logits(features.test), {"lambda": probe.strength}, select)
