"""Batch norms over the batch of all ranks."""

# B rows of one process, C channels

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from train.loop.distributed import Distributed


def shared(module: nn.Module, distributed: Distributed) -> nn.Module:
    """Return a module whose batch norms see the rows of all ranks in training; the names in its state stay.

    torch's own does so on GPUs alone. On CPUs ours does, so that a run of several processes can be tried there.
    """
    if distributed.world_size == 1:
        return module
    if next(module.parameters()).is_cuda:
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)  # timm's knows its own norms, which have an activation inside
    return _replaced(module, distributed)


class SyncBatchNorm(_BatchNorm):
    """A batch norm over the rows of all ranks. Use `shared`."""

    distributed: Distributed

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        self.drop: nn.Module = nn.Identity()  # timm's norms have these two inside
        self.act: nn.Module = nn.Identity()

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise rows of BxC, or BxCxHxW."""
        if not self.training:
            return self.act(self.drop(super().forward(rows)))
        kind, rows = rows.dtype, rows.float()
        count = self.distributed.world_size * rows.numel() // rows.shape[1]  # every rank brings as many
        shape = (1, -1, *(1,) * (rows.ndim - 2))
        mean_C = self._summed(rows) / count
        centred = rows - mean_C.view(shape)
        variance_C = self._summed(centred * centred) / count
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean_C, momentum)  # type: ignore[union-attr]
            unbiased_C = variance_C * (count / max(1, count - 1))
            self.running_var.lerp_(unbiased_C, momentum)  # type: ignore[union-attr]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        normed = centred * scale_C.view(shape) + self.bias.view(shape)
        return self.act(self.drop(normed.to(kind)))

    def _summed(self, rows: Tensor) -> Tensor:
        """Return the sum over rows and ranks of each channel."""
        sums_C = rows.sum(dim=[d for d in range(rows.ndim) if d != 1])
        return self.distributed.all_gather_with_gradients(sums_C[None]).sum(dim=0)

    def _check_input_dim(self, rows: Tensor) -> None:
        """Any number of dimensions will do."""


def _replaced(module: nn.Module, distributed: Distributed) -> nn.Module:
    if isinstance(module, _BatchNorm):
        norm = SyncBatchNorm(module.num_features, module.eps, module.momentum)
        norm.load_state_dict(module.state_dict())
        norm.distributed = distributed
        norm.drop, norm.act = (getattr(module, name, norm.act) for name in ("drop", "act"))
        return norm
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, distributed))
    return module
