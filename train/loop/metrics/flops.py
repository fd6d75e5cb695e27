"""What a step costs: floating-point operations of a sample, and what a GPU could do at most.

Counted on the meta device: no memory, no time to speak of, and nothing of the training is touched.
"""

# B samples

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from train.loop.method import Columns, Method, PreparedBatch

C = TypeVar("C", bound=AbstractContextManager)

ROWS = 2  # of the counted batch


class Peak(NamedTuple):
    """What a GPU's datasheet promises."""

    flops: float  # a second, bf16 (fp16 where there is none) with float32 sums, without sparsity
    bandwidth: float  # bytes a second


# The words that must be in a GPU's name; the first line of which all are decides. All from NVIDIA's datasheets, whose
# figures "with sparsity" are halved: nvidia.com/en-us/data-center/NAME (h200, h100, a100, l40s, l4, a10, a30, v100),
# the Ampere GA102 and Ada white papers for GeForce and RTX, the Turing white paper for the T4.
PEAKS: dict[tuple[str, ...], Peak] = {
    ("B200",): Peak(2250e12, 8.0e12),
    ("H200", "NVL"): Peak(836e12, 4.8e12),
    ("GH200",): Peak(989e12, 4.0e12),
    ("H200",): Peak(989e12, 4.8e12),
    ("H100", "NVL"): Peak(835e12, 3.9e12),
    ("H100", "PCIE"): Peak(756e12, 2.0e12),
    ("H100",): Peak(989e12, 3.35e12),
    ("A100", "PCIE", "80GB"): Peak(312e12, 1.935e12),
    ("A100", "80GB"): Peak(312e12, 2.039e12),
    ("A100",): Peak(312e12, 1.555e12),
    ("A30",): Peak(165e12, 0.933e12),
    ("A40",): Peak(149.7e12, 0.696e12),
    ("A10",): Peak(125e12, 0.6e12),
    ("A6000",): Peak(154.8e12, 0.768e12),
    ("L40S",): Peak(362e12, 0.864e12),
    ("L40",): Peak(181e12, 0.864e12),
    ("L4",): Peak(121e12, 0.3e12),
    ("RTX", "6000", "ADA"): Peak(364e12, 0.96e12),
    ("RTX", "4090"): Peak(165.2e12, 1.008e12),
    ("RTX", "3090"): Peak(71e12, 0.936e12),
    ("V100", "SXM2"): Peak(125e12, 0.9e12),
    ("V100",): Peak(112e12, 0.9e12),
    ("T4",): Peak(65e12, 0.32e12),
}
SLOWER_VARIANTS = {"LAPTOP", "MAX", "D", "MIG"}  # words of slower GPUs, and of slices of one


def per_sample(method: Method, prepared: PreparedBatch) -> float:
    """Return the floating-point operations of a sample's forward and backward pass, a multiplication and an addition
    counted as two.

    Matrix products and convolutions alone count, as everywhere. The loss does not: in a contrast over 4,096 pairs it
    is 0.1 % of the whole, and it may speak with other processes. Nor does a forward pass that is done twice to save
    memory: what is counted is what had to be done.
    """
    return training_flops(method.module, prepared.inputs)


def training_flops(module: nn.Module, inputs: Columns) -> float:
    """Return the floating-point operations a row of a module's forward and backward pass."""
    counter = counted_by(lambda: FlopCounterMode(display=False), module, inputs, ROWS)
    return counter.get_total_flops() / ROWS


def peak(name: str) -> Peak | None:
    """Return what a GPU of this name could do at most, as far as it is known."""
    words = set(re.split(r"[\s-]+", name.upper()))
    return next(
        (known for wanted, known in PEAKS.items() if words >= set(wanted) and not words & SLOWER_VARIANTS),
        None,
    )


def peak_flops(device: torch.device) -> float | None:
    """Return the operations a second that a device could do in bf16; None for a CPU and for a GPU not known."""
    known = peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return known.flops if known else None


def mfu(flops_per_sample: float, samples_per_s: float, device: torch.device) -> float | None:
    """Return the share (0..1) of a device's peak that went into the model; None where that is not known.

    Args:
        flops_per_sample: see `per_sample`.
        samples_per_s: of this device, not of all ranks.
        device: whose peak.
    """
    most = peak_flops(device)
    return flops_per_sample * samples_per_s / most if most else None


def counted_by(make: Callable[[], C], module: nn.Module, inputs: Columns, rows: int) -> C:
    """Return a counter that has seen a module run forward and backward.

    The module's weights, gradients and statistics, and all random states, stay as they were.

    Args:
        make: makes the counter, a context.
        module: what runs; on the meta device, or as a copy where it looks at values.
        inputs: whose shapes and types count.
        rows: of the batch that is counted.
    """
    devices = list({column.device for column in inputs if column.is_cuda})
    with torch.random.fork_rng(devices=devices), torch.enable_grad(), _unshared(module):
        try:
            counter = make()
            with counter:
                state = {name: _empty(tensor) for name, tensor in _state(module)}
                _sum(
                    functional_call(module, state, tuple(_rows(column, rows) for column in inputs))
                ).backward()
        except (NotImplementedError, RuntimeError):  # it looks at values, which tensors on meta do not have
            counter = make()
            with counter:
                columns = tuple(
                    column[torch.arange(rows, device=column.device) % len(column)] for column in inputs
                )
                _sum(copy.deepcopy(module)(*columns)).backward()
    return counter


def _sum(outputs: Any) -> Tensor:
    """Return a scalar through which gradients reach all outputs."""
    return torch.stack([output.float().sum() for output in tree_leaves(outputs) if _learns(output)]).sum()


def _learns(output: Any) -> bool:
    return isinstance(output, Tensor) and output.requires_grad


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)


def _rows(column: Tensor, rows: int) -> Tensor:
    return torch.empty((rows, *column.shape[1:]), dtype=column.dtype, device="meta")


@contextmanager
def _unshared(module: nn.Module) -> Iterator[None]:
    """Keep norms from asking other processes for their statistics, which costs the same arithmetic."""
    norms = [
        one for one in module.modules() if isinstance(one, nn.modules.batchnorm._NormBase) and one.training
    ]
    try:
        for norm in norms:
            norm.training = False
        yield
    finally:
        for norm in norms:
            norm.training = True
