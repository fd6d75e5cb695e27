"""Contrastive losses."""

# B samples of one process, V views of each, D features, R = B * V rows of one process, C = R * ranks columns

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from train.loop.distributed import Distributed


def nt_xent(projections_BVD: Tensor, *, temperature: float, distributed: Distributed | None = None) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy of views: which of all others are of the same sample?

    The mean over the rows of this process. Each stands against the rows of all processes, so its memory is that of
    the whole batch times this process's part, and the mean of the processes' losses, and of their gradients, is that
    of the batch in one process. Of more than two views, each pair of a sample counts alike.

    Args:
        projections_BVD: of two or more views, of any length; every process brings as many.
        temperature: what cosines are divided by, above 0.
        distributed: the processes that share the batch.

    Returns:
        A scalar, float32. Views that are all alike lose log(C - 1); the least is near 0, with V = 2 and a small
        temperature.

    Source: Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709
    """
    distributed = distributed or Distributed()
    with torch.autocast(projections_BVD.device.type, enabled=False):  # bf16 knows a cosine to 0.004 alone
        rows_RD = functional.normalize(projections_BVD.float(), dim=2).flatten(0, 1)
        logits_RC = (rows_RD / temperature) @ distributed.all_gather_with_gradients(rows_RD).T
        own_R, others_RV = _partners(
            len(projections_BVD), projections_BVD.shape[1], distributed.rank, rows_RD.device
        )
        logits_RC.scatter_(1, own_R[:, None], -torch.inf)  # in place: at 4,096 samples a copy would be 270 MB
        return -logits_RC.log_softmax(dim=1).gather(1, others_RV).mean()


def _partners(samples: int, views: int, rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where among the columns of all ranks each row of this one stands, and where its partners do.

    Returns:
        Of each row itself (R), and of the other views of its sample (R x V-1).
    """
    own_R = torch.arange(samples * views, device=device) + rank * samples * views
    view_R = torch.arange(views, device=device).repeat(samples)
    away_V = torch.arange(1, views, device=device)
    others_RV = (own_R - view_R)[:, None] + (view_R[:, None] + away_V) % views
    return own_R, others_RV
