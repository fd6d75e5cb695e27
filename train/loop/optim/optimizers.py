"""Optimisers and the learning rate over a run."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from curate.errors import RecipeError, did_you_mean

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

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
    groups = _groups(module, config.weight_decay)
    betas = (config.beta1, config.beta2)
    if config.optimizer == "adamw":
        return adamw(groups, lr=config.lr, betas=betas, eps=config.eps)
    if config.optimizer == "sgd":
        nesterov, fused = config.momentum > 0, groups[0]["params"][0].is_cuda
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    import timm.optim

    known = timm.optim.list_optimizers()
    if config.optimizer not in known:
        hint = did_you_mean(config.optimizer, [*OURS, *known])
        hint = hint or f"one of: {', '.join(OURS)}, or any optimiser of timm"
        raise RecipeError(f"no optimizer {config.optimizer!r}", hint=hint)
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
    fused = all(one.device.type in ("cuda", "cpu") and one.is_floating_point() for one in weights)
    return torch.optim.AdamW(groups, fused=fused, **more)


def schedule(
    optimizer: torch.optim.Optimizer, config: LoopConfig, *, total_steps: int, steps_per_epoch: int
) -> Scheduler:
    """Return the learning rate over a run, as timm has it; `step_update(step)` sets that of a step (from 0).

    It rises linearly to `config.lr` over the warm-up, from the first step's share on, and then follows
    `config.schedule`: half a cosine down to 0, steps down every `step_epochs`, or level.
    """
    from timm.scheduler import CosineLRScheduler, StepLRScheduler

    warmup_steps = config.warmup(total_steps)
    rise: dict[str, Any] = {
        "warmup_t": warmup_steps,
        "warmup_lr_init": config.lr / max(1, warmup_steps),
        "t_in_epochs": False,
    }
    if config.schedule == "cosine":
        left = max(1, total_steps - warmup_steps)
        return CosineLRScheduler(optimizer, t_initial=left, warmup_prefix=True, **rise)
    every = max(1, round(config.step_epochs * steps_per_epoch))
    if config.schedule == "constant":
        every = total_steps + 1
    return StepLRScheduler(
        optimizer, decay_t=every, decay_rate=config.step_factor, warmup_prefix=False, **rise
    )


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    spared = _spared(module)
    flat = [p for name, p in learning.items() if p.ndim <= 1 or name in spared]
    deep = [p for name, p in learning.items() if p.ndim > 1 and name not in spared]
    groups = [{"params": deep, "weight_decay": weight_decay}, {"params": flat, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _spared(module: nn.Module) -> set[str]:
    """Return the names that a timm model inside wants spared: position embeddings and class tokens."""
    return {
        f"{place}.{name}".lstrip(".")
        for place, part in module.named_modules()
        if callable(spares := getattr(part, "no_weight_decay", None))
        for name in spares()
    }
