"""Optimisers and the learning rate over a run."""

from __future__ import annotations

import math

import torch
from torch import nn

from curate.errors import RecipeError, did_you_mean

OURS = ("adamw", "sgd")


def optimizer(module: nn.Module, name: str, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return an optimiser of everything that learns; norms and biases do not decay.

    Args:
        module: what learns, already on its device.
        name: adamw, sgd (Nesterov, momentum 0.9), or any of timm's (lamb, lars, muon, …).
        lr: at the peak.
        weight_decay: of matrices and kernels alone.

    Raises:
        RecipeError: no such optimiser.
    """
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    spared = _spared(module)
    flat = [p for name, p in learning.items() if p.ndim <= 1 or name in spared]
    deep = [p for name, p in learning.items() if p.ndim > 1 and name not in spared]
    groups = [{"params": deep, "weight_decay": weight_decay}, {"params": flat, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    fused = next(iter(learning.values())).is_cuda
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, fused=fused)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=fused)
    import timm.optim

    known = timm.optim.list_optimizers()
    if name not in known:
        hint = did_you_mean(name, [*OURS, *known]) or f"one of: {', '.join(OURS)}, or any optimiser of timm"
        raise RecipeError(f"no optimizer {name!r}", hint=hint)
    return timm.optim.create_optimizer_v2(groups, opt=name, lr=lr)


def learning_rate(step: int, *, peak: float, warmup_steps: int, total_steps: int) -> float:
    """Return the rate of a step (from 0): linear up to the peak, then half a cosine down to 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def _spared(module: nn.Module) -> set[str]:
    """Return the names that a timm model inside wants spared: position embeddings and class tokens."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        if callable(spares := getattr(part, "no_weight_decay", None))
        for name in spares()
    }
