"""The processes of one run: who this one is among them, and what they tell each other.

`torchrun` and Slurm's `srun` say so in the environment; without either there is one process.
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

# Where rank, ranks, local rank and local ranks are found. `SLURM_STEP_TASKS_PER_NODE` is there under srun alone: a
# script in a job's allocation is one process.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")


@dataclass(frozen=True)
class Ranks:
    """Who this process is.

    Args:
        rank: from 0.
        ranks: how many there are.
        local_rank: among those of this machine: which GPU is its own.
        local_ranks: how many of them share this machine.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0
    local_ranks: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, in place; no gradients."""
        if self.ranks > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_uint64(self, number: int) -> int:
        """Return the sum over all ranks, modulo 2**64."""
        if self.ranks == 1:
            return number
        halves = self._tensor([number & 0xFFFFFFFF, number >> 32])
        low, high = self.sum(halves).tolist()
        return (low + (high << 32)) % 2**64

    def most(self, *numbers: int) -> tuple[int, ...]:
        """Return the largest of each number over all ranks."""
        if self.ranks == 1:
            return numbers
        told = self._tensor(numbers)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return tuple(told.tolist())

    def first_of(self, step: Tensor) -> int:
        """Return the smallest number over all ranks that is not 0, and 0 where all are; waits for the device."""
        (found,) = self.most(-int(step) if int(step) else -(2**62))
        return 0 if found == -(2**62) else -found

    def collected(self, tensor: Tensor) -> list[Tensor]:
        """Return each rank's tensor, of one shape; no gradients."""
        if self.ranks == 1:
            return [tensor]
        place = self._device()
        found = [torch.empty_like(tensor, device=place) for _ in range(self.ranks)]
        torch.distributed.all_gather(found, tensor.to(place))
        return found

    def gathered(self, rows_BD: Tensor) -> Tensor:
        """Return the rows of all ranks, in the order of ranks; gradients flow back to the rank they came from.

        Every rank must bring as many rows.
        """
        if self.ranks == 1:
            return rows_BD
        return torch.cat(_Gathered.apply(rows_BD.contiguous()))

    def wait(self) -> None:
        """Wait until all are here."""
        self.most(0)

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device())

    def _device(self) -> torch.device:
        nccl = torch.distributed.get_backend() == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


class _Gathered(torch.autograd.Function):
    """The rows of all ranks; each rank's gradient is the sum of what all ranks' losses say of its rows."""

    @staticmethod
    def forward(context: Any, rows_BD: Tensor) -> tuple[Tensor, ...]:
        found = [torch.empty_like(rows_BD) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(found, rows_BD)
        return tuple(found)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = torch.stack(gradients)
        torch.distributed.all_reduce(summed)
        return summed[torch.distributed.get_rank()]


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read who this process is from the variables of torchrun, or else of Slurm.

    Raises:
        RecipeError: numbers that cannot be.
    """
    names = next(
        (names for names in (TORCHRUN, SLURM) if names[0] in environment and names[1] in environment), None
    )
    if names is None:
        return Ranks()
    said = ", ".join(f"{name}={environment[name]}" for name in names if name in environment)
    try:
        # Slurm says "2(x3)" of three machines with two each, or "2,1"; this one's share matters for speed alone.
        rank, ranks, local, locals_ = (
            int(re.split(r"[(,]", environment.get(name, default))[0])
            for name, default in zip(names, ("0", "1", "0", "1"), strict=True)
        )
    except ValueError:
        raise RecipeError(f"{said}: no rank", hint="start the run by torchrun, or by srun") from None
    if not (0 <= rank < ranks and locals_ >= 1):
        raise RecipeError(f"{said}: no rank", hint="start the run by torchrun, or by srun")
    return Ranks(rank, ranks, local, locals_)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Meet the other ranks, and part from them at the end.

    A rank that dies makes the others stop: at once where its connection closes, after half an hour else.

    Args:
        device: NCCL joins GPUs, gloo joins CPUs.
    """
    here = ranks_of()
    if here.ranks == 1 or torch.distributed.is_initialized():
        yield here
        return
    os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    os.environ.setdefault("MASTER_PORT", str(PORT))
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=here.rank,
        world_size=here.ranks,
        timeout=datetime.timedelta(seconds=TIMEOUT_S),
    )
    try:
        yield here
    finally:
        torch.distributed.destroy_process_group()
