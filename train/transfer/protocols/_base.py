"""What every protocol of transfer has: a name, its settings, and `measure`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from train.runs import Run
from train.transfer.features import ProtocolResult
from train.transfer.shots import TrainSubset
from train.transfer.tasks.task import TaskKind


@dataclass(frozen=True)
class TransferProtocol:
    """A way to measure a run on a task; its fields are its settings.

    The settings decide its numbers. What does not decide them (the size of a cache, say) is not a setting.
    """

    name: ClassVar[str]
    kind: ClassVar[TaskKind] = "classification"  # of the tasks that it measures
    learns: ClassVar[bool] = True  # whether it uses the training images; zero-shot does not
    frozen: ClassVar[bool] = (
        True  # whether the backbone stays as it is, so that measurements share its features
    )
    chance_at_full: ClassVar[bool] = False  # whether seeds differ where all images are drawn
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as results record them."""
        return dataclasses.asdict(self)

    def check(self) -> None:
        """Refuse settings that cannot be meant.

        Raises:
            RecipeError: the first of them.
        """

    def refuse(self, run: Run, task: Any) -> None:
        """Refuse a run or a task that it cannot measure.

        Raises:
            RecipeError: with the reason.
        """

    def content(self) -> str | None:
        """Return the digest of the file that a setting names; None where no setting names one."""
        return None

    def measure(self, run_on_task: Any, subset: TrainSubset) -> ProtocolResult:
        """Learn from a subset of the training images, and score the whole test set.

        Args:
            run_on_task: RunFeatures, or RunOnDetectionTask where `kind` is detection.
            subset: the training images.
        """
        raise NotImplementedError
