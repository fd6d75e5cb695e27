"""The sum of the losses between two lines of the log."""

from __future__ import annotations

import torch

from train.loop.distributed import Distributed
from train.loop.state import LossSum, State


def test_a_line_of_the_log_has_the_losses_since_the_line_before() -> None:
    alone = Distributed()
    losses = LossSum(State(loss_sum=1.5, loss_steps=1), torch.device("cpu"))
    losses.add(torch.tensor(0.5))
    assert losses.over_ranks(alone) == (2.0, 2)  # with the step that a checkpoint brought
    losses.reset()
    losses.add(torch.tensor(3.0))
    losses.add(torch.tensor(1.0))
    assert losses.over_ranks(alone) == (4.0, 2)
