"""How far a run is: what a checkpoint holds besides the weights and the training step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from curate.errors import DataError
from train.loop.distributed import Distributed


@dataclass
class State:
    """How far a run is. The names of the fields are those in checkpoints."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    loss: float = math.nan  # mean of the last line of the log
    loss_sum: float = 0.0  # since that line
    loss_steps: int = 0
    fingerprint: int = 0  # of all samples so far and their places; equal for runs that saw the same
    best: float = -math.inf  # of the first metric
    best_step: int = 0
    measured: dict[str, float] = field(default_factory=dict)  # the last measurement
    measured_step: int = 0
    flops_per_sample: float | None = None
    broken: dict[int, str] = field(default_factory=dict)  # rows that could not be read, with the reason
    warned: list[str] = field(default_factory=list)  # operators that are not deterministic

    @classmethod
    def of(cls, out: Path, saved: dict[str, Any]) -> State:
        """Return the state that a checkpoint of the run in `out` holds, checked: anybody may have written it.

        Raises:
            DataError: a field has no such value.
        """
        try:
            return TypeAdapter(cls).validate_python(saved)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(
                f"{out}: its last checkpoint cannot be read ({first['loc'][0]}: {first['msg']})",
                hint="delete it, and the run goes on from the one before",
            ) from error


class LossSum:
    """The sum of the losses since the last line of the log. It stays on the device, so that no step waits for it."""

    def __init__(self, state: State, device: torch.device) -> None:
        self.steps = state.loss_steps
        self._sum = torch.tensor(state.loss_sum, dtype=torch.float64).to(device)

    def add(self, loss: Tensor) -> None:
        """Add the loss of a step."""
        self._sum += loss
        self.steps += 1

    def over_ranks(self, distributed: Distributed) -> tuple[float, int]:
        """Return the sum and the number of steps of all ranks; waits for the device."""
        both = torch.stack([self._sum, torch.full_like(self._sum, self.steps)])
        total, steps = distributed.sum(both).tolist()
        return total, int(steps)

    def reset(self) -> None:
        """Begin again at zero."""
        self.steps = 0
        self._sum.zero_()
