"""The learning rate's course, and what decays."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from curate.errors import RecipeError
from train.loop.config import LoopConfig
from train.loop.optim.optimizers import (
    adamw,
    decay_groups,
    half_cosine,
    optimizer,
    pretraining_rate,
    split_by_decay,
    steps_down,
)
from train.models.registry import build


def config(**options: Any) -> LoopConfig:
    return LoopConfig(**options)


def rates(steps: int, **options: Any) -> list[float]:
    """Return the rate of each step of a run of 10 steps an epoch."""
    return [
        pretraining_rate(config(**options), step, total_steps=steps, steps_per_epoch=10)
        for step in range(steps)
    ]


def test_rates_are_timms_to_the_last_bit() -> None:
    from timm.scheduler import CosineLRScheduler, StepLRScheduler

    for steps, warmup, lr in ((110, 10, 2.0), (97, 13, 1e-3), (1000, 1, 0.3), (50, 0, 0.1), (7, 7, 0.7)):
        sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
        rise = {"warmup_t": warmup, "warmup_lr_init": lr / max(1, warmup), "t_in_epochs": False}
        cosine = CosineLRScheduler(sgd, t_initial=max(1, steps - warmup), warmup_prefix=True, **rise)
        assert rates(steps, lr=lr, warmup_steps=warmup) == [cosine._get_lr(t)[0] for t in range(steps)]
        sgd.param_groups[0]["lr"] = lr
        step = StepLRScheduler(sgd, decay_t=30, decay_rate=0.1, warmup_prefix=False, **rise)
        ours = rates(steps, lr=lr, warmup_steps=warmup, schedule="step", step_epochs=3, step_factor=0.1)
        assert ours == [step._get_lr(t)[0] for t in range(steps)]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    found = rates(110, lr=2.0, warmup_steps=10)
    assert found[0] == pytest.approx(0.2)
    assert max(found) == found[10] == 2.0
    assert found[60] == pytest.approx(1.0)
    assert found == sorted(found[:11]) + sorted(found[11:], reverse=True)
    assert 0 < found[-1] < 0.001
    assert rates(110, lr=2.0, warmup_fraction=1 / 11) == found


def test_the_rate_falls_in_steps_counted_from_the_first_epoch() -> None:
    found = rates(90, lr=1.0, schedule="step", step_epochs=3, step_factor=0.1, warmup_steps=5)
    assert found[:6] == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84, 1.0])
    assert found[5:30] == [1.0] * 25
    assert found[30:60] == pytest.approx([0.1] * 30)
    assert found[60:] == pytest.approx([0.01] * 30)


def test_a_level_rate_is_level_after_the_warm_up() -> None:
    assert rates(50, lr=0.5, schedule="constant", warmup_steps=0) == [0.5] * 50
    assert rates(50, lr=0.5, schedule="constant", warmup_steps=10)[10:] == [0.5] * 40


def test_shares_of_a_rate_are_the_published_formulas_to_the_last_bit() -> None:
    cosine = [0.5 * (1 + math.cos(math.pi * step / 90)) for step in range(90)]
    assert [half_cosine(step, 90) for step in range(90)] == cosine
    assert half_cosine(0, 0) == 1.0  # a training that ends with its warm-up
    drops = [1.0] * 30 + [0.1] * 30 + [0.1**2] * 30
    assert [steps_down(step, (30, 60)) for step in range(90)] == drops
    assert steps_down(60, (30, 59.5), factor=0.5) == 0.25


def test_what_does_not_learn_is_in_no_group_and_others_are_in_their_order() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2), nn.Linear(2, 2))
    module[3].requires_grad_(False)
    decaying, others = split_by_decay(module, spared={"2.weight"})
    assert list(decaying) == ["0.weight"]
    assert list(others) == ["0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    groups = decay_groups(module, 0.3)
    assert [len(group["params"]) for group in groups] == [2, 4]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert len(decay_groups(nn.BatchNorm2d(4), 0.3)) == 1  # no empty group


def test_numbers_of_the_config_reach_the_optimizer() -> None:
    module = nn.Linear(2, 2)
    adam = optimizer(module, config(beta1=0.8, beta2=0.98, eps=1e-6)).param_groups[0]
    assert (adam["betas"], adam["eps"]) == ((0.8, 0.98), 1e-6)
    for name in ("sgd", "lars"):
        assert optimizer(module, config(optimizer=name, momentum=0.7)).param_groups[0]["momentum"] == 0.7
    assert optimizer(module, config(optimizer="larc", trust=0.02)).param_groups[0]["trust_coeff"] == 0.02
    with pytest.raises(RecipeError, match=r"trust with 'lamb'"):
        optimizer(module, config(optimizer="lamb", trust=0.02))
    assert optimizer(module, config(optimizer="lamb", beta2=0.98)).param_groups[0]["betas"] == (0.9, 0.98)
    with pytest.raises(RecipeError, match=r"no optimizer 'adamv'\n.*did you mean"):
        optimizer(module, config(optimizer="adamv"))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_kernels_decay_and_norms_biases_and_positions_do_not(name: str) -> None:
    model = build("vit_tiny_patch16_224", num_classes=2, image_size=32)
    names = {id(p): n for n, p in model.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer(model, config(optimizer=name, lr=1, weight_decay=0.5)).param_groups
        for p in group["params"]
    }
    assert set(decays) == set(names.values())
    assert decays["head.weight"] == decays["backbone.blocks.0.attn.qkv.weight"] == 0.5
    for spared in ("head.bias", "backbone.norm.weight", "backbone.pos_embed", "backbone.cls_token"):
        assert decays[spared] == 0.0


def test_what_is_frozen_is_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    groups = optimizer(module, config(weight_decay=0)).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


def test_adamw_is_one_kernel_on_a_cpu_with_the_same_steps() -> None:
    torch.manual_seed(0)
    ours, plain = nn.Linear(5, 3), nn.Linear(5, 3)
    plain.load_state_dict(ours.state_dict())
    told = {"lr": 0.01, "weight_decay": 0.1}
    groups = [
        {"params": [plain.weight]},
        {"params": [plain.bias], "weight_decay": 0.0},
    ]
    learners = [optimizer(ours, config(**told)), torch.optim.AdamW(groups, fused=False, **told)]
    assert learners[0].defaults["fused"]
    for _ in range(3):
        for module, learner in zip((ours, plain), learners, strict=True):
            module(torch.ones(4, 5)).square().sum().backward()
            learner.step()
            learner.zero_grad()
    torch.testing.assert_close(ours.weight, plain.weight)
    torch.testing.assert_close(ours.bias, plain.bias)


def test_a_checkpoint_of_another_kernel_is_gone_on_with() -> None:
    module = nn.Linear(5, 3)
    before = torch.optim.AdamW(module.parameters(), fused=False)
    module(torch.ones(4, 5)).sum().backward()
    before.step()
    after = adamw([{"params": list(module.parameters())}])
    saved, own = before.state_dict(), after.state_dict()["param_groups"]
    groups = [there | here for there, here in zip(saved["param_groups"], own, strict=True)]
    after.load_state_dict({"state": saved["state"], "param_groups": groups})
    after.step()
    assert after.state[module.weight]["step"] == 2
