"""Zero-shot: classes recognised by their names, without an image of them; for runs of `clip`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curate.captions.templates import texts
from train.runs import Run
from train.transfer.features import BATCH, Outcome, Subject, forward
from train.transfer.protocols._texts import image_side, require_texts, text_weights
from train.transfer.shots import Draw
from train.transfer.tasks.task import Kind, Task


@dataclass(frozen=True)
class ZeroShot:
    """The protocol: each image goes to the class whose texts are nearest. It learns from no image of the task.

    Args:
        templates: texts with {}, or a named set such as openai-80; the task's own by default.

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.1
    """

    name: ClassVar[str] = "zero-shot"
    kind: ClassVar[Kind] = "classification"
    learns: ClassVar[bool] = False
    frozen: ClassVar[bool] = True
    chance_at_full: ClassVar[bool] = False

    templates: tuple[str, ...] | str = ()

    def check(self) -> None:
        """Refuse templates that there are not."""
        if self.templates:
            texts(self.templates)

    def refuse(self, run: Run, task: Task) -> None:
        """Refuse a run without a text tower."""
        require_texts(run)

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Answer on the whole test set by the classes' texts."""
        weights_CE = text_weights(subject, self.templates)
        images_NE = forward(
            image_side(subject), subject.pixels.test.squares.batches(BATCH, subject.device), subject.run.spec
        )
        return subject.outcome(images_NE @ weights_CE.T, {}, "none")


PROTOCOLS = (ZeroShot,)
