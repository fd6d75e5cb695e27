"""What a method brings to the loop: a module that learns, what goes into it, and its loss."""

# B samples of a batch; of one process, where several share it

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from train.data.loader import Batch
from train.models.registry import ModelSpec

Columns = tuple[Tensor, ...]  # each of B rows, on the device


@dataclass(frozen=True)
class Lesson:
    """A batch, made ready on the device.

    Args:
        inputs: what the module is called with.
        targets: what the loss needs besides the module's outputs.
    """

    inputs: Columns
    targets: Columns = ()


@dataclass(frozen=True)
class Method:
    """What a method brings to the loop.

    Args:
        name: supervised, clip, simclr, slip.
        spec: of the backbone.
        module: all that learns, on its device; its state is what the run saves. Called with the inputs it returns a
            column of B rows, or a tuple of them. What is one number for all (a temperature) it returns once a row, so
            that gradients reach it through its outputs alone.
        lesson: augments, normalises, tokenises; called without gradients and outside autocast.
        loss: a scalar, the mean over the rows of the outputs and targets of one process; float32.
        joint: whether the loss of a sample depends on the rest of the batch, as in a contrast. Such a loss sees the
            outputs of the whole batch, also where memory holds a part of it at a time.
        evaluate: metrics (0..1) of the module that is given, in eval mode; None where there is nothing to measure on.
        after_step: called after the optimiser, as for keeping a temperature within its bounds.
        watched: metrics of the last step for the log, as tensors: read only when a line is written.
        facts: what else the run's plan and `run.json` should name, such as the templates of a zero-shot head.
    """

    name: str
    spec: ModelSpec
    module: nn.Module
    lesson: Callable[[Batch], Lesson]
    loss: Callable[[Columns, Columns], Tensor]
    joint: bool = False
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    after_step: Callable[[], None] | None = None
    watched: Callable[[], Mapping[str, Tensor]] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
