"""Online probe: how well the features of a backbone that trains without labels predict them."""

# N rows, Q rows asked about, C classes, D features

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.data.loader import Loader
from train.eval.knn import votes
from train.loop.devices import autocast
from train.loop.distributed import Distributed
from train.models.registry import normalize


@dataclass(frozen=True)
class OnlineProbe:
    """Measure a module with a `backbone`, and maybe a `probe`: a linear layer from its features to classes.

    Args:
        held_out: the labelled rows to classify.
        bank: the labelled rows to find neighbours among; None for no kNN.
        bank_rows: how many of them, from the first.
        classes: their number.
        k: neighbours that vote.
        temperature: of their votes.
        precision: as in the config.
    """

    held_out: Loader
    bank: Loader | None
    bank_rows: int
    classes: int
    k: int
    temperature: float
    precision: str = "auto"

    @torch.inference_mode()
    def __call__(self, module: nn.Module) -> dict[str, float]:
        """Return the accuracies (0..1): `knn`, and `probe` where there is a probe."""
        features_QD, labels_Q = features(module, self.held_out, self.precision)
        accuracies: dict[str, float] = {}
        if self.bank is not None:
            bank_ND, labels_N = features(module, self.bank, self.precision, self.bank_rows)
            options = {"classes": self.classes, "k": self.k, "temperature": self.temperature}
            accuracies["knn"] = _accuracy(votes(features_QD, bank_ND, labels_N, **options), labels_Q)  # type: ignore[arg-type]
        if isinstance(probe := getattr(module, "probe", None), nn.Module):
            accuracies["probe"] = _accuracy(probe(features_QD), labels_Q)
        return accuracies


@torch.inference_mode()
def features(
    module: nn.Module, loader: Loader, precision: str = "auto", rows: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return the backbone's features_ND (float32) and labels_N of a loader's labelled rows.

    Args:
        module: with a `backbone`, in eval mode.
        loader: gives whole images; its processes end with this.
        precision: as in the config.
        rows: stop after so many.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    count = 0
    with closing(loader.epoch(0)) as batches:
        for batch in filter(len, batches):
            with autocast(precision, loader.device):
                features_BD = module.backbone(normalize(batch.images)).float()  # type: ignore[operator]
            labelled_B = batch.labels >= 0
            parts.append((features_BD[labelled_B], batch.labels[labelled_B]))
            count += len(parts[-1][0])
            if rows is not None and count >= rows:
                break
    loader.close()
    features_ND, labels_N = (torch.cat(column)[:rows] for column in zip(*parts, strict=True))
    return features_ND, labels_N


def probe_loss(
    logits_BC: Tensor, labels_B: Tensor, distributed: Distributed | None = None
) -> tuple[Tensor, Tensor]:
    """Return cross-entropy and accuracy over the rows that have a label; 0 where none has.

    The mean over the ranks is that over all rows, however the labelled ones are spread.
    """
    distributed = distributed or Distributed()
    labelled = distributed.sum((labels_B >= 0).sum()).clamp(min=1) / distributed.world_size
    loss = functional.cross_entropy(logits_BC, labels_B, ignore_index=-1, reduction="sum") / labelled
    return loss, (logits_BC.detach().argmax(dim=1) == labels_B).sum() / labelled


def _accuracy(scores_QC: Tensor, labels_Q: Tensor) -> float:
    return (scores_QC.argmax(dim=1) == labels_Q).float().mean().item()
