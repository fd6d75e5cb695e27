"""Classifiers to fine-tune: a run's backbone, and a head that starts at zeros, at a probe's weights or at texts."""

# B images, D features, E of the space where images and texts meet, C classes

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from train.models.registry import in_float32
from train.transfer.features import RunFeatures
from train.transfer.protocols._dual_encoder import image_encoder, logit_scale, text_weights
from train.transfer.protocols.linear import Linear
from train.transfer.shots import TrainSubset

HeadInit = Literal["auto", "zeros", "probe", "zero-shot"]


class Classifier(nn.Module):
    """A backbone and a linear head."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return logits_BC of normalised images."""
        return in_float32(self.head, self.backbone(images_B3HW))


def initial_classifier(
    features: RunFeatures,
    subset: TrainSubset,
    head: HeadInit,
    *,
    probe: Linear,
    templates: tuple[str, ...] | str,
) -> nn.Module:
    """Return the model that fine-tuning starts from, in eval mode; copy it before training it.

    Args:
        features: a run on a task.
        subset: what a probe is fitted to.
        head: zeros; probe, fitted to the draw; zero-shot, the texts of the classes times the run's scale, on embeddings
            of length 1; or auto: zero-shot for a run of clip, probe for one of simclr, else zeros.
        probe: how a probe is fitted.
        templates: of the texts; the task's own where there are none.

    Raises:
        RecipeError: a zero-shot head, and the run has no text tower.
    """
    kind = (
        {"clip": "zero-shot", "simclr": "probe"}.get(features.run.info.method, "zeros")
        if head == "auto"
        else head
    )
    if kind == "zeros":
        return Classifier(features.model.backbone, features.model.head)  # type: ignore[arg-type]
    if kind == "probe":
        fitted, _ = probe.fit(features, subset)
        weights_DC, bias_C = fitted.raw()
        return Classifier(features.model.backbone, _linear(weights_DC.T, bias_C))
    weights_CE = text_weights(features, templates) * logit_scale(features)
    return Classifier(image_encoder(features), _linear(weights_CE, torch.zeros(len(weights_CE))))


def _linear(weights_CD: Tensor, bias_C: Tensor) -> nn.Linear:
    head = nn.Linear(weights_CD.shape[1], weights_CD.shape[0], device=weights_CD.device)
    with torch.no_grad():
        head.weight.copy_(weights_CD)
        head.bias.copy_(bias_C)
    return head
