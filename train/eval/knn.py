"""k-nearest-neighbour classification of features against a bank of labelled rows."""

# Q query rows, N rows of the bank, D features, C classes, K neighbours

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import DataError, require

BLOCK_BYTES = 1 << 28  # of similarities at a time


@torch.no_grad()
def nearest(queries_QD: Tensor, bank_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the cosines of the k nearest rows of a bank, the nearest first, and which rows they are.

    Exact, and computed block by block: the cosines of all with all need never be there at once.

    Args:
        queries_QD: floats, of any length.
        bank_ND: likewise, on the same device.
        k: all N where it is more.

    Returns:
        QxK, float32, and QxK, int64.
    """
    k = min(k, len(bank_ND))
    queries_QD, bank_ND = (functional.normalize(rows.float(), dim=1) for rows in (queries_QD, bank_ND))
    block = max(1, BLOCK_BYTES // (4 * len(bank_ND)))
    top = [(rows @ bank_ND.T).topk(k, dim=1) for rows in queries_QD.split(block)]
    return torch.cat([part.values for part in top]), torch.cat([part.indices for part in top])


def votes(
    queries_QD: Tensor,
    bank_ND: Tensor,
    labels_N: Tensor,
    *,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Tensor:
    """Return for each class the weight of its rows among the k nearest, each weighing exp(cosine / temperature).

    Args:
        queries_QD: features of what is to be classified.
        bank_ND: features of rows whose class is known.
        labels_N: theirs, int64, in 0..classes-1.
        classes: C.
        k: 20 and 0.07 are DINO's, 200 and 0.1 are lightly's.
        temperature: above 0; the smaller, the more the nearest decide.

    Returns:
        QxC, float32, of which the largest names the class; in units of what the nearest row weighs, so that nothing
        overflows or vanishes.

    Source: Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978

    Raises:
        DataError: the bank is empty.
        RecipeError: a k or temperature that cannot be meant.
    """
    require(k >= 1, "k", k, "1 or more")
    require(temperature > 0, "temperature", temperature, "above 0")
    if not len(bank_ND):
        raise DataError("no labelled rows to find neighbours among", hint="label some, or leave the kNN out")
    cosines_QK, rows_QK = nearest(queries_QD, bank_ND, k)
    weights_QK = ((cosines_QK - cosines_QK[:, :1]) / temperature).exp()
    votes_QC = torch.zeros(len(queries_QD), classes, device=queries_QD.device)
    return votes_QC.scatter_add_(1, labels_N[rows_QK], weights_QK)
