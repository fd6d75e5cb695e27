"""The gradient of a batch, computed in pieces where it does not fit into memory at once.

The gradients of a loss that is a mean over samples are summed over the pieces. A contrastive loss needs the outputs of
the whole batch: they are computed without gradients first, the loss gives the gradient of each output, and the pieces
run again to carry it into the weights (GradCache: Gao et al. 2021, https://arxiv.org/abs/2101.06983). Both equal the
gradient of the batch in one piece, except that batch norms take their statistics from a piece.
"""

# B samples of this process

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from train.loop.method import Columns, Method, PreparedBatch

Autocast = Callable[[], AbstractContextManager]


def backward(
    method: Method,
    module: nn.Module,
    batch: PreparedBatch,
    *,
    pieces: int = 1,
    autocast: Autocast = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Tensor:
    """Add the gradient of a batch's loss to the weights, and return the loss.

    Args:
        method: whose loss it is.
        module: the method's, or what wraps it (DistributedDataParallel, a compiled one).
        batch: the part of this process.
        pieces: into how many the batch is cut; no more than it has samples.
        autocast: around the module alone: the loss is made of float32.
        scale: of the loss before its gradient is taken, for float16.
    """
    cuts = _cuts(batch, pieces)
    if len(cuts) == 1:
        loss = method.loss(_outputs(module, batch.inputs, autocast), batch.targets)
        scale(loss).backward()
        return loss.detach()
    return (_joint if method.joint else _summed)(method, module, batch, cuts, autocast, scale)


def _summed(
    method: Method,
    module: nn.Module,
    batch: PreparedBatch,
    cuts: list[slice],
    autocast: Autocast,
    scale: Callable,
) -> Tensor:
    size = len(batch.inputs[0])
    total = torch.zeros((), device=batch.inputs[0].device)
    for number, cut in enumerate(cuts):
        with _silent(module, number < len(cuts) - 1):
            outputs = _outputs(module, _cut(batch.inputs, cut), autocast)
            loss = method.loss(outputs, _cut(batch.targets, cut)) * ((cut.stop - cut.start) / size)
            scale(loss).backward()
        total += loss.detach()
    return total


def _joint(
    method: Method,
    module: nn.Module,
    batch: PreparedBatch,
    cuts: list[slice],
    autocast: Autocast,
    scale: Callable,
) -> Tensor:
    device = batch.inputs[0].device
    random = []
    parts = []
    with torch.no_grad(), _untracked(module), _silent(module, True):
        for cut in cuts:
            random.append(_random_state(device))
            parts.append(_outputs(module, _cut(batch.inputs, cut), autocast))
    after = _random_state(device)
    # Detached: a view of a weight wants gradients even where it was made without.
    outputs = tuple(torch.cat(column).detach() for column in zip(*parts, strict=True))
    leaves = tuple(c.requires_grad_() if c.is_floating_point() else c for c in outputs)
    loss = method.loss(leaves, batch.targets)
    scale(loss).backward()
    for number, (cut, state) in enumerate(zip(cuts, random, strict=True)):
        _set_random_state(state, device)  # dropout falls as it fell
        with _silent(module, number < len(cuts) - 1):
            again = _outputs(module, _cut(batch.inputs, cut), autocast)
            pairs = [
                (o, leaf.grad[cut]) for o, leaf in zip(again, leaves, strict=True) if leaf.grad is not None
            ]
            torch.autograd.backward([o for o, _ in pairs], [gradient for _, gradient in pairs])
    _set_random_state(after, device)
    return loss.detach()


def _outputs(module: nn.Module, inputs: Columns, autocast: Autocast) -> Columns:
    with autocast():
        outputs = module(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    return tuple(column.float() if column.is_floating_point() else column for column in outputs)


def _cuts(batch: PreparedBatch, pieces: int) -> list[slice]:
    size = len(batch.inputs[0])
    bounds = [size * number // min(pieces, size) for number in range(min(pieces, size) + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


def _cut(columns: Columns, cut: slice) -> Columns:
    return tuple(column[cut] for column in columns)


@contextmanager
def _silent(module: nn.Module, silent: bool) -> Iterator[None]:
    """Keep ranks from exchanging the gradients of a piece: they exchange once, after the last."""
    with ExitStack() as stack:
        if silent and isinstance(module, nn.parallel.DistributedDataParallel):
            stack.enter_context(module.no_sync())
        yield


@contextmanager
def _untracked(module: nn.Module) -> Iterator[None]:
    """Keep batch norms from updating their statistics from rows that they will see again."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if n.num_batches_tracked is None else n.num_batches_tracked.clone() for n in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
