"""The processes of one run: the rank of this one, and what they exchange.

`torchrun` and Slurm's `srun` set the ranks in the environment. Without either there is one process.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from curate.errors import RecipeError

TIMEOUT_S = (
    1800  # that a rank waits for the others, such as for the first one's measurement, before it gives up
)
PORT = 29_500  # where Slurm's ranks meet; torchrun says its own

# The variables of rank, world size, local rank and local world size. `SLURM_STEP_TASKS_PER_NODE` is there under srun
# alone: a script in a job's allocation is one process.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")


@dataclass(frozen=True)
class Distributed:
    """The rank of this process, and the size of the world; its methods are collective: every rank calls them.

    Args:
        rank: from 0.
        world_size: how many ranks there are.
        local_rank: among the ranks of this machine; it is the number of this rank's GPU.
        local_world_size: how many ranks share this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank is 0, which alone writes files and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, in place; no gradients."""
        if self.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_uint64(self, number: int) -> int:
        """Return the sum over all ranks, modulo 2**64."""
        if self.world_size == 1:
            return number
        halves = self._tensor([number & 0xFFFFFFFF, number >> 32])
        low, high = self.sum(halves).tolist()
        return (low + (high << 32)) % 2**64

    def max(self, *numbers: int) -> tuple[int, ...]:
        """Return the largest of each number over all ranks."""
        if self.world_size == 1:
            return numbers
        largest = self._tensor(numbers)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return tuple(largest.tolist())

    def first_failed(self, step: Tensor) -> int:
        """Return the smallest step over all ranks that is not 0; 0 where all are 0. Waits for the device."""
        never = -(2**62)
        (largest,) = self.max(-int(step) if int(step) else never)
        return 0 if largest == never else -largest

    def all_gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor of each rank, all of one shape; no gradients."""
        if self.world_size == 1:
            return [tensor]
        device = self._device()
        gathered = [torch.empty_like(tensor, device=device) for _ in range(self.world_size)]
        torch.distributed.all_gather(gathered, tensor.to(device))
        return gathered

    def all_gather_with_gradients(self, rows_BD: Tensor) -> Tensor:
        """Return the rows of all ranks, in the order of ranks; gradients flow back to the rank they came from.

        Every rank must give the same number of rows.
        """
        if self.world_size == 1:
            return rows_BD
        return torch.cat(_AllGather.apply(rows_BD.contiguous()))

    def barrier(self) -> None:
        """Wait until every rank calls this."""
        self.max(0)

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device())

    def _device(self) -> torch.device:
        nccl = torch.distributed.get_backend() == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


class _AllGather(torch.autograd.Function):
    """The rows of all ranks. The gradient of a rank's rows is the sum of the gradients of all ranks' losses."""

    @staticmethod
    def forward(context: Any, rows_BD: Tensor) -> tuple[Tensor, ...]:
        gathered = [torch.empty_like(rows_BD) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(gathered, rows_BD)
        return tuple(gathered)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = torch.stack(gradients)
        torch.distributed.all_reduce(summed)
        return summed[torch.distributed.get_rank()]


def distributed_from(environment: Mapping[str, str] = os.environ) -> Distributed:
    """Read the ranks from the variables of torchrun, or else of Slurm.

    Raises:
        RecipeError: numbers that cannot be.
    """
    names = next(
        (names for names in (TORCHRUN, SLURM) if names[0] in environment and names[1] in environment), None
    )
    if names is None:
        return Distributed()
    variables = ", ".join(f"{name}={environment[name]}" for name in names if name in environment)
    try:
        # Slurm says "2(x3)" of three machines with two each, or "2,1"; this one's share matters for speed alone.
        rank, world_size, local_rank, local_world_size = (
            int(re.split(r"[(,]", environment.get(name, default))[0])
            for name, default in zip(names, ("0", "1", "0", "1"), strict=True)
        )
    except ValueError:
        raise RecipeError(f"{variables}: no rank", hint="start the run by torchrun, or by srun") from None
    if not (0 <= rank < world_size and local_world_size >= 1):
        raise RecipeError(f"{variables}: no rank", hint="start the run by torchrun, or by srun")
    return Distributed(rank, world_size, local_rank, local_world_size)


@contextmanager
def joined(device: torch.device) -> Iterator[Distributed]:
    """Join the group of the other ranks, and leave it at the end.

    Where a rank dies, the others stop: at once if its connection closes, else after half an hour.

    Args:
        device: NCCL joins GPUs, gloo joins CPUs.
    """
    own = distributed_from()
    if own.world_size == 1 or torch.distributed.is_initialized():
        yield own
        return
    os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    os.environ.setdefault("MASTER_PORT", str(PORT))
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=own.rank,
        world_size=own.world_size,
        timeout=datetime.timedelta(seconds=TIMEOUT_S),
    )
    try:
        yield own
    finally:
        torch.distributed.destroy_process_group()
