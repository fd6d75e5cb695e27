"""The learning rate's course, and what decays."""

from __future__ import annotations

import pytest
from torch import nn

from train.models import build
from train.optimizers import learning_rate, optimizer


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, peak=2.0, warmup_steps=10, total_steps=110) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_kernels_decay_and_norms_biases_and_positions_do_not(name: str) -> None:
    model = build("vit_tiny_patch16_224", num_classes=2, image_size=32)
    names = {id(p): n for n, p in model.named_parameters()}
    decays = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer(model, name, lr=1, weight_decay=0.5).param_groups
        for p in group["params"]
    }
    assert set(decays) == set(names.values())
    assert decays["head.weight"] == decays["backbone.blocks.0.attn.qkv.weight"] == 0.5
    for spared in ("head.bias", "backbone.norm.weight", "backbone.pos_embed", "backbone.cls_token"):
        assert decays[spared] == 0.0


def test_what_is_frozen_is_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    groups = optimizer(module, "adamw", lr=1, weight_decay=0).param_groups
    assert sum(len(group["params"]) for group in groups) == 2
