"""What a run computes on: device, number type, processes that decode."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

import torch

from curate.errors import MissingError, RecipeError
from train.loop.distributed import distributed_from
from train.runs import cores

Precision = Literal["auto", "bf16", "fp16", "fp32"]


def pick_device(name: str) -> torch.device:
    """Return the device of a config; of several processes on a machine, each takes the GPU of its own number.

    Raises:
        RecipeError: no such device.
        MissingError: this machine has no GPU.
    """
    distributed = distributed_from()
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise RecipeError(f"no device {name!r}", hint="auto, cpu, cuda or cuda:1") from None
    if device.type not in ("cuda", "cpu", "mps"):
        raise RecipeError(f"device {name!r} cannot train", hint="auto, cpu, cuda or cuda:1")
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise MissingError(f"device {name!r}: torch sees no GPU here", hint="take --device cpu or auto")
    if (
        distributed.world_size > 1 and torch.cuda.device_count() > 1
    ):  # Slurm may show each process its own GPU alone
        device = torch.device("cuda", distributed.local_rank)
    if (device.index or 0) >= torch.cuda.device_count():
        raise MissingError(
            f"device {device}: there are {torch.cuda.device_count()} GPUs here",
            hint="start one process a GPU (torchrun --nproc-per-node)",
        )
    torch.cuda.set_device(device)
    return device


def pick_workers(workers: int | None = None) -> int:
    """Return how many processes decode for this one; by default one a core of this rank's share, 16 at most."""
    if workers is not None:
        return workers
    return min(16, max(1, cores() // distributed_from().local_world_size))


def number_type(precision: str, device: torch.device) -> torch.dtype:
    """Return what a model computes in: float32, or half of it under autocast."""
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Return the context in which a model runs forward."""
    kind = number_type(precision, device)
    return torch.autocast(device.type, kind, enabled=kind != torch.float32)
