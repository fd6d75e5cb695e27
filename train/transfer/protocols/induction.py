"""Induction accuracy: do features that learned coarse labels tell fine classes apart?"""

# N reference images, Q held-out images, B of them, D features, C classes

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import RecipeError
from train.eval.knn import BLOCK_BYTES
from train.runs import Run
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.protocols._base import TransferProtocol
from train.transfer.shots import TrainSubset
from train.transfer.tasks.task import Task


@dataclass(frozen=True)
class Induction(TransferProtocol):
    """The protocol: each held-out image is given the fine class of its nearest reference image.

    The task's classes are the fine ones, its training images the references, its test images what is held out from
    both. Classes are ranked by their nearest reference, so top-1 is the nearest neighbour's and top-5 asks for the true
    class among the five that are nearest.

    Args:
        layer: a module of the backbone; its own features by default, which in AlexNet are fc7's.
        distance: cosine, or l2.

    Source: Huh, Agrawal and Efros 2016, https://arxiv.org/abs/1608.08614, section 5
    """

    name: ClassVar[str] = "induction"

    layer: str | None = None
    distance: Literal["cosine", "l2"] = "cosine"

    def refuse(self, run: Run, task: Task) -> None:
        """Refuse a task whose images may have several labels."""
        if task.multi_label:
            raise RecipeError(
                f"induction on task {task.name!r}, whose images may have several labels",
                hint="take knn, or a task of one label an image",
            )

    def measure(self, features: RunFeatures, subset: TrainSubset) -> ProtocolResult:
        """Rank the classes for the whole test set."""
        queries_QD = features.frozen(self.layer).test
        bank_ND, targets_N = features.of_subset(subset, self.layer)
        return features.result(self.nearness(queries_QD, bank_ND, targets_N, features.classes), {}, "none")

    def nearness(self, queries_QD: Tensor, bank_ND: Tensor, targets_N: Tensor, classes: int) -> Tensor:
        """Return for each class how near its nearest reference is, QxC: the larger, the nearer."""
        if self.distance == "cosine":
            queries_QD, bank_ND = (functional.normalize(one, dim=1) for one in (queries_QD, bank_ND))
        block = max(1, BLOCK_BYTES // (4 * len(bank_ND)))
        found = []
        for queries_BD in queries_QD.split(block):
            if self.distance == "cosine":
                near_BN = queries_BD @ bank_ND.T
            else:
                near_BN = -torch.cdist(queries_BD, bank_ND)
            lowest = torch.full(
                (len(queries_BD), classes), torch.finfo(near_BN.dtype).min, device=near_BN.device
            )
            places_BN = targets_N.expand(len(queries_BD), -1)
            found.append(lowest.scatter_reduce(1, places_BN, near_BN, "amax"))
        return torch.cat(found)


PROTOCOLS = (Induction,)
