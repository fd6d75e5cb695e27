"""Copies from the host to a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Return an array on a device; the host does not wait for it.

    On a GPU it is copied from pinned memory: a copy from any other goes through a buffer of the driver's, and may wait
    for all that the GPU has yet to do. On a CPU it is the array itself.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
