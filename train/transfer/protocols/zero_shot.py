"""Zero-shot: classes recognised by their names, without an image of them; for runs of `clip`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curate.captions.templates import texts
from train.runs import Run
from train.transfer.features import BATCH, ProtocolResult, RunFeatures, forward
from train.transfer.protocols._base import TransferProtocol
from train.transfer.protocols._dual_encoder import image_encoder, require_text_encoder, text_weights
from train.transfer.shots import TrainSubset
from train.transfer.tasks.task import Task


@dataclass(frozen=True)
class ZeroShot(TransferProtocol):
    """The protocol: each image goes to the class whose texts are nearest. It learns from no image of the task.

    Args:
        templates: texts with {}, or a named set such as openai-80; the task's own by default.

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1
    """

    name: ClassVar[str] = "zero-shot"
    learns: ClassVar[bool] = False

    templates: tuple[str, ...] | str = ()

    def check(self) -> None:
        """Refuse templates that there are not."""
        if self.templates:
            texts(self.templates)

    def refuse(self, run: Run, task: Task) -> None:
        """Refuse a run without a text tower."""
        require_text_encoder(run)

    def measure(self, features: RunFeatures, subset: TrainSubset) -> ProtocolResult:
        """Answer on the whole test set by the classes' texts."""
        weights_CE = text_weights(features, self.templates)
        images_NE = forward(
            image_encoder(features),
            features.images.test.squares.batches(BATCH, features.device),
            features.run.spec,
        )
        return features.result(images_NE @ weights_CE.T, {}, "none")


PROTOCOLS = (ZeroShot,)
