"""Nearest neighbours among frozen features: what they say of classes before anything is fitted."""

# N training images, Q test images, K neighbours, C classes

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from curate.errors import require
from train.eval.knn import nearest, votes
from train.transfer.features import Outcome, Subject
from train.transfer.shots import Draw
from train.transfer.tasks.task import Kind


@dataclass(frozen=True)
class Knn:
    """The protocol: the k nearest by cosine, each weighing exp(cosine / temperature).

    Nothing is chosen, so nothing is held out. Where an image may have several labels, a class scores the share of the
    neighbours' weight that has it.

    Args:
        k: neighbours; all images of a smaller draw. 20 and 0.07 are DINO's, 200 and 0.1 lightly's, 1 the proxy of
            Entezari et al.
        temperature: the smaller, the more the nearest decide.
        layer: a module of the backbone whose output is taken; its own features by default.

    Source: Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978
    """

    name: ClassVar[str] = "knn"
    kind: ClassVar[Kind] = "classification"
    learns: ClassVar[bool] = True
    frozen: ClassVar[bool] = True
    chance_at_full: ClassVar[bool] = False

    k: int = 20
    temperature: float = 0.07
    layer: str | None = None

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        require(self.k > 0, "k", self.k, "1 or more")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Let the draw vote on the whole test set."""
        features = subject.features(self.layer)
        bank_ND = features.train[torch.from_numpy(drawn.rows).to(subject.device)]
        targets = torch.from_numpy(drawn.targets).to(subject.device)
        k = min(self.k, len(drawn))
        if targets.ndim == 1:
            options = {"classes": subject.classes, "k": k, "temperature": self.temperature}
            answers_QC = votes(features.test, bank_ND, targets, **options)  # type: ignore[arg-type]
        else:
            answers_QC = self._shares(features.test, bank_ND, targets, k)
        return subject.outcome(answers_QC, {"k": k}, "none")

    def _shares(self, queries_QD: Tensor, bank_ND: Tensor, targets_NC: Tensor, k: int) -> Tensor:
        cosines_QK, rows_QK = nearest(queries_QD, bank_ND, k)
        weights_QK = ((cosines_QK - cosines_QK[:, :1]) / self.temperature).exp()
        has_NC = (targets_NC == 1).float()
        shares = [
            (weights_BK[:, :, None] * has_NC[rows_BK]).sum(1) / weights_BK.sum(1, keepdim=True)
            for weights_BK, rows_BK in zip(weights_QK.split(256), rows_QK.split(256), strict=True)
        ]
        return torch.cat(shares)


PROTOCOLS = (Knn,)
