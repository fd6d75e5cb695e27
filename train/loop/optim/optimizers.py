"""Optimisers, learning rates over a training, and which weights decay."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from curate.errors import RecipeError, reject_unknown

if TYPE_CHECKING:
    from train.loop.config import LoopConfig

OURS = ("adamw", "sgd")


def optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """Return an optimiser of everything that learns; norms and biases do not decay.

    Args:
        module: what learns, already on its device.
        config: `optimizer` and its numbers: adamw, sgd (Nesterov), or any of timm's (lamb, lars, muon, …). timm's
            optimisers are given those of the numbers that they know.

    Raises:
        RecipeError: no such optimiser.
    """
    if config.trust is not None and config.optimizer in OURS:
        raise RecipeError(f"trust with {config.optimizer!r}, which knows none", hint="lars and larc do")
    groups = decay_groups(module, config.weight_decay, _spared(module))
    betas = (config.beta1, config.beta2)
    if config.optimizer == "adamw":
        return adamw(groups, lr=config.lr, betas=betas, eps=config.eps)
    if config.optimizer == "sgd":
        nesterov, fused = config.momentum > 0, groups[0]["params"][0].is_cuda
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    import timm.optim

    known = [*OURS, *timm.optim.list_optimizers()]
    hint = f"one of: {', '.join(OURS)}, or any optimiser of timm"
    reject_unknown(config.optimizer, known, f"no optimizer {config.optimizer!r}", hint=hint)
    info = timm.optim.get_optimizer_info(config.optimizer)
    more: dict[str, Any] = {"betas": betas} if info.has_betas else {}
    more |= {"eps": config.eps} if info.has_eps else {}
    more |= {"momentum": config.momentum} if info.has_momentum else {}
    if config.trust is not None:
        if "trust_coeff" not in inspect.signature(info.opt_class).parameters:
            raise RecipeError(f"trust with {config.optimizer!r}, which knows none", hint="lars and larc do")
        more["trust_coeff"] = config.trust
    return timm.optim.create_optimizer_v2(groups, opt=config.optimizer, lr=config.lr, **more)


def adamw(groups: list[dict[str, Any]], **more: Any) -> torch.optim.AdamW:
    """Return torch's AdamW in one kernel for all weights, where there is one.

    On a CPU too: 22 ms a step of 43 million weights, where one weight after the other takes 111.
    """
    weights = [weight for group in groups for weight in group["params"]]
    fused = all(w.device.type in ("cuda", "cpu") and w.is_floating_point() for w in weights)
    return torch.optim.AdamW(groups, fused=fused, **more)


def pretraining_rate(config: LoopConfig, step: int, *, total_steps: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step (from 0) of a run.

    It rises linearly over the warm-up, from the first step's share of `config.lr` on, and then follows
    `config.schedule`: half a cosine down to 0, steps down every `step_epochs`, or constant.
    """
    warmup_steps = config.warmup(total_steps)
    if step < warmup_steps:
        first = config.lr / warmup_steps
        return first + step * ((config.lr - first) / warmup_steps)
    if config.schedule == "cosine":
        return config.lr * half_cosine(step - warmup_steps, total_steps - warmup_steps)
    if config.schedule == "constant":
        return config.lr
    return config.lr * config.step_factor ** (step // max(1, round(config.step_epochs * steps_per_epoch)))


def half_cosine(step: int, steps: int) -> float:
    """Return the share of a rate that is left at a step: half a cosine from 1 at step 0 to 0 at `steps`."""
    return 0.5 * (1 + math.cos(math.pi * step / max(1, steps)))


def steps_down(step: int, at: Iterable[float], factor: float = 0.1) -> float:
    """Return the share of a rate that is left at a step: it is multiplied by `factor` at each of the steps `at`."""
    return factor ** sum(step >= drop for drop in at)


def split_by_decay(
    module: nn.Module, spared: Collection[str] = ()
) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """Return the parameters that weight decay applies to, and the others: norms, biases and those that are `spared`.

    Parameters that do not learn are in neither.
    """
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    decaying = {name: p for name, p in learning.items() if p.ndim > 1 and name not in spared}
    return decaying, {name: p for name, p in learning.items() if name not in decaying}


def decay_groups(
    module: nn.Module, weight_decay: float, spared: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return an optimiser's groups of parameters, with and without weight decay; see `split_by_decay`."""
    decaying, others = split_by_decay(module, spared)
    groups = [
        {"params": [*decaying.values()], "weight_decay": weight_decay},
        {"params": [*others.values()], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _spared(module: nn.Module) -> set[str]:
    """Return the names that the timm models inside exempt from decay: position embeddings and class tokens."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if callable(exempt := getattr(part, "no_weight_decay", None))
        for name in exempt()
    }
