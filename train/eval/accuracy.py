"""Top-1 and top-5 accuracy, counted batch by batch."""

# B samples, C classes, K ranks

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from train.data.batch import Batch
from train.data.loader import Loader

RANKS = 5  # classes of a sample that count for top-5


class Accuracy:
    """Shares of samples whose label is among the classes of the highest scores.

    Attributes:
        seen: samples that have a label.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._right: dict[str, int] = {}

    def add(self, scores_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Count a batch, and return the class of the highest score of each row: B, int64.

        Args:
            scores_BC: the higher, the likelier.
            labels_B: on the same device; rows of label -1 are left out.
        """
        ranked_BK = scores_BC.topk(min(RANKS, scores_BC.shape[1])).indices
        hits_BK = ranked_BK == labels_B[:, None]
        self.seen += int((labels_B >= 0).sum())
        self._right["top1"] = self._right.get("top1", 0) + int(hits_BK[:, :1].sum())
        if scores_BC.shape[1] > RANKS:
            self._right["top5"] = self._right.get("top5", 0) + int(hits_BK.sum())
        return ranked_BK[:, 0]

    def shares(self) -> dict[str, float]:
        """Return `top1`, and `top5` where there are more than five classes, in 0..1."""
        return {name: count / self.seen for name, count in self._right.items()}


@torch.inference_mode()
def accuracy(scores: Callable[[Batch], Tensor], loader: Loader) -> dict[str, float]:
    """Return `top1`, and `top5` where there are more than five classes, over a loader's readable samples.

    Args:
        scores: gives scores_BC of a batch, on the loader's device.
        loader: gives each sample once, with a label.
    """
    counted = Accuracy()
    for batch in filter(len, loader.epoch(0)):
        counted.add(scores(batch), batch.labels)
    return counted.shares()
