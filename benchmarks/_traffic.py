"""The memory traffic of a sample, and the share of a GPU's bandwidth that it takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train.loop.method import Columns
from train.loop.metrics.flops import ROWS, counted_by, peak

ACTIVATION_BYTES = 2  # of a number in bf16
UNREAD = (
    "aten._unsafe_view",
    "aten.empty",
    "aten.empty_like",
)  # a view that does not say so; and space alone
AGAIN = {  # which arguments an operator reads a second time
    "aten.native_batch_norm": (0,),
    "aten.native_batch_norm_backward": (0, 1),
    "aten.convolution_backward": (0,),
}


def training_bytes(module: nn.Module, inputs: Columns) -> float:
    """Return the bytes a row that activations and their gradients move through memory in forward and backward.

    It is a model of bf16 in eager mode without any cache: each operator reads its inputs and writes its outputs. A
    batch norm reads twice, for statistics and for the result; a convolution's backward reads its gradient twice, for
    the input's and for the weight's. Weights are left out. Attention counts as if its scores were written, which
    fused kernels do not: the number is meant for convolutional networks.
    """
    few, many = (counted_by(_Traffic, module, inputs, rows).numbers for rows in (ROWS, 2 * ROWS))
    return (many - few) / ROWS * ACTIVATION_BYTES  # what both have in common are weights


def bandwidth_share(bytes_per_sample: float, samples_per_s: float, device: torch.device) -> float | None:
    """Return the share (0..1) of a GPU's bandwidth that the traffic takes; None for a CPU and an unknown GPU."""
    found = peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return bytes_per_sample * samples_per_s / found.bandwidth if found else None


class _Traffic(TorchDispatchMode):
    """Count the numbers that operators read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        name = str(function.overloadpacket)
        if name not in UNREAD and not _is_view(function):
            again = [args[i] for i in AGAIN.get(name, ())]
            tensors = tree_leaves((args, kwargs, result, again))
            self.numbers += sum(one.numel() for one in tensors if isinstance(one, Tensor))
        return result


def _is_view(function: Any) -> bool:
    """Whether an operator's result is its input, seen otherwise."""
    aliases = [returned.alias_info for returned in function._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
