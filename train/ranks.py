"""The processes of one run: who this one is among them, and what they tell each other.

`torchrun` and Slurm's `srun` say so in the environment; without either there is one process.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

from curate.errors import RecipeError

TIMEOUT_S = 600  # that a rank waits for the others before it gives up
PORT = 29_500  # where Slurm's ranks meet; torchrun says its own


@dataclass(frozen=True)
class Ranks:
    """Who this process is.

    Args:
        rank: from 0.
        ranks: how many there are.
        local_rank: among those of this machine: which GPU is its own.
    """

    rank: int = 0
    ranks: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks, in place; no gradients."""
        if self.ranks > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def gathered(self, rows_BD: Tensor) -> Tensor:
        """Return the rows of all ranks, in the order of ranks; gradients flow back to the rank they came from.

        Every rank must bring as many rows.
        """
        if self.ranks == 1:
            return rows_BD
        import torch.distributed.nn

        return torch.cat(torch.distributed.nn.all_gather(rows_BD.contiguous()))

    def wait(self) -> None:
        """Wait until all are here."""
        if self.ranks > 1:
            torch.distributed.barrier()


def ranks_of(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Read who this process is from the variables of torchrun, or else of Slurm.

    Raises:
        RecipeError: numbers that cannot be.
    """
    named = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    slurm = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    if named[0] in environment and named[1] in environment:
        names = named
    elif slurm[0] in environment and int(environment.get(slurm[1], "1")) > 1 and "SLURM_STEP_ID" in environment:
        names = slurm
    else:
        return Ranks()
    try:
        rank, ranks, local = (int(environment.get(name, "0")) for name in names)
    except ValueError:
        said = ", ".join(f"{name}={environment.get(name)}" for name in names)
        raise RecipeError(f"{said}: no rank", hint="start the run by torchrun, or by srun") from None
    if not 0 <= rank < ranks:
        raise RecipeError(f"rank {rank} of {ranks}", hint="start the run by torchrun, or by srun")
    return Ranks(rank, ranks, local)


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Meet the other ranks, and part from them at the end.

    A rank that dies makes the others stop: at once where its connection closes, after ten minutes else.

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
