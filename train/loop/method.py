"""A method of training, as the loop sees it: a module, its inputs, and its loss."""

# B samples of a batch; of one process, where several share it

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from train.data.batch import Batch
from train.models.registry import ModelSpec

Columns = tuple[Tensor, ...]  # each of B rows, on the device


@dataclass(frozen=True)
class PreparedBatch:
    """A batch that is augmented, normalised and on the device.

    Args:
        inputs: the arguments of the module.
        targets: the arguments of the loss besides the module's outputs.
    """

    inputs: Columns
    targets: Columns = ()


@dataclass(frozen=True)
class Method:
    """A method of training.

    Args:
        name: supervised, clip, simclr.
        spec: of the backbone.
        module: everything that is trained, on its device; the run saves its state. Called with the inputs, it returns a
            column of B rows, or a tuple of them. It repeats a single number (a temperature) for each row, so that
            gradients reach it through the outputs alone.
        prepare_batch: augments, normalises, tokenises; called without gradients and outside autocast.
        loss: a scalar, the mean over the rows of the outputs and targets of one process; float32.
        joint: whether the loss of a sample depends on the rest of the batch, as in contrastive methods. Such a loss
            gets the outputs of the whole batch, even where only a part of it fits into memory at a time.
        evaluate: returns metrics (0..1) of a module in eval mode; None without validation data.
        after_step: called after the optimiser, for example to keep a temperature within its bounds.
        watched: metrics of the last step for the log, as tensors: read only when a line is written.
        facts: what else `run.json` records, such as the prompts of a zero-shot classifier.
    """

    name: str
    spec: ModelSpec
    module: nn.Module
    prepare_batch: Callable[[Batch], PreparedBatch]
    loss: Callable[[Columns, Columns], Tensor]
    joint: bool = False
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None
    after_step: Callable[[], None] | None = None
    watched: Callable[[], Mapping[str, Tensor]] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
