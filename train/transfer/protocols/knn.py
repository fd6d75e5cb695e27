"""Nearest neighbours among frozen features: what they say of classes before anything is fitted."""

# N training images, Q test images, K neighbours, C classes

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from curate.errors import require
from train.eval.knn import nearest, votes
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.protocols._base import TransferProtocol
from train.transfer.shots import TrainSubset


@dataclass(frozen=True)
class Knn(TransferProtocol):
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

    k: int = 20
    temperature: float = 0.07
    layer: str | None = None

    def check(self) -> None:
        """Refuse settings that cannot be meant."""
        require(self.k > 0, "k", self.k, "1 or more")
        require(self.temperature > 0, "temperature", self.temperature, "above 0")

    def measure(self, features: RunFeatures, subset: TrainSubset) -> ProtocolResult:
        """Let the draw vote on the whole test set."""
        queries_QD = features.frozen(self.layer).test
        bank_ND, targets = features.of_subset(subset, self.layer)
        k = min(self.k, len(subset))
        if targets.ndim == 1:
            options = {"classes": features.classes, "k": k, "temperature": self.temperature}
            answers_QC = votes(queries_QD, bank_ND, targets, **options)  # type: ignore[arg-type]
        else:
            answers_QC = self._shares(queries_QD, bank_ND, targets, k)
        return features.result(answers_QC, {"k": k}, "none")

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
