"""The parts of a training step: average, scaler, memory that is too small."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from curate.errors import RecipeError
from train.loop.config import LoopConfig
from train.loop.devices import number_type
from train.loop.distributed import Distributed
from train.loop.method import Method, PreparedBatch
from train.loop.optim import train_step
from train.loop.optim.train_step import TrainStep
from train.models.registry import ModelSpec

CPU = torch.device("cpu")


def new_step(module: nn.Module | None = None, **options: Any) -> TrainStep:
    torch.manual_seed(0)
    module = module or nn.Linear(4, 3)
    method = Method(
        "toy",
        ModelSpec("none", "imagenet", 0, 8),
        module,
        lambda batch: PreparedBatch(()),
        lambda outputs, targets: functional.cross_entropy(outputs[0], targets[0]),
    )
    config = LoopConfig(warmup_steps=0, schedule="constant", **options)
    return TrainStep(method, config, Distributed(), CPU, total_steps=100, steps_per_epoch=10)


def prepared(count: int = 8) -> PreparedBatch:
    generator = torch.Generator().manual_seed(3)
    return PreparedBatch(
        (torch.randn(count, 4, generator=generator),), (torch.randint(3, (count,), generator=generator),)
    )


def test_average_follows_the_weights_and_is_what_is_kept() -> None:
    one = new_step(optimizer="sgd", lr=1.0, momentum=0.0, ema=0.5)
    before = one.measured_module.weight.clone()
    one.step(prepared(), 0)
    now = one.method.module.weight
    assert not torch.equal(before, now)
    decay = one.average.get_decay(0)
    assert torch.allclose(one.measured_module.weight, decay * before + (1 - decay) * now)
    assert one.measured_module is not one.method.module


def test_average_goes_on_from_a_state() -> None:
    one, other = new_step(ema=0.9), new_step(ema=0.9)
    for step in range(3):
        one.step(prepared(), step)
    other.method.module.load_state_dict(one.method.module.state_dict())
    other.load_state(copy.deepcopy(one.state()))
    for each in (one, other):
        each.step(prepared(), 3)
    assert torch.equal(one.measured_module.weight, other.measured_module.weight)
    assert torch.equal(one.method.module.weight, other.method.module.weight)


def test_float16_scales_the_loss_and_its_state_goes_on() -> None:
    one = new_step(precision="fp16", lr=0.01)
    assert one.scaler.is_enabled()
    losses = [float(one.step(prepared(), step)) for step in range(30)]
    assert losses[-1] < losses[0]
    other = new_step(precision="fp16")
    one.scaler.update(1024.0)
    other.load_state(one.state())
    assert other.scaler.get_scale() == 1024.0


@pytest.mark.parametrize("clip_norm", [None, 0.1])
def test_step_whose_loss_is_no_number_is_remembered(clip_norm: float | None) -> None:
    one = new_step(clip_norm=clip_norm)
    one.step(prepared(), 0)
    assert int(one.failed_step) == 0
    bad = PreparedBatch((torch.full((2, 4), torch.inf),), (torch.zeros(2, dtype=torch.long),))
    for step in (1, 2):
        one.step(bad, step)
    assert int(one.failed_step) == 2  # the first of them, counted from 1


def test_gradient_is_cut_to_its_norm() -> None:
    one = new_step(optimizer="sgd", lr=1.0, momentum=0.0, weight_decay=0.0, clip_norm=0.01)
    before = [p.detach().clone() for p in one.method.module.parameters()]
    one.step(prepared(), 0)
    moved = torch.cat(
        [(b - p).flatten() for b, p in zip(before, one.method.module.parameters(), strict=True)]
    )
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_memory_that_is_too_small_is_told_with_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    backward: Callable[..., Any] = train_step.backward

    def little(method: Method, module: nn.Module, whole: PreparedBatch, *, pieces: int, **rest: Any) -> Any:
        if len(whole.inputs[0]) / pieces > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return backward(method, module, whole, pieces=pieces, **rest)

    monkeypatch.setattr(train_step, "backward", little)
    one = new_step(batch_size=16, accumulate=1)
    with pytest.raises(RecipeError, match=r"a batch of 16 does not fit") as error:
        one.step(prepared(16), 0)
    assert error.value.hint == "accumulate 8 fits, and so does batch_size 2"
    new_step(batch_size=16, accumulate=8).step(prepared(16), 0)


def test_compiled_module_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(torch, "compile", lambda module: (compiled.append(module), module)[1])
    new_step(compile=True).step(prepared(), 0)
    assert len(compiled) == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_number_type_on_a_cpu(name: str, kind: torch.dtype) -> None:
    assert number_type(name, CPU) == kind


def test_shared_norms_keep_what_a_model_has_inside_its_norms() -> None:
    """timm's norms carry an activation; without it the weights would belong to another model."""
    from train.loop.optim.norms import shared
    from train.models.registry import build

    model = build("mobilenetv3_small_050", num_classes=3, image_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    together = shared(model, Distributed(0, 2)).eval()
    assert any(type(m).__name__ == "SyncBatchNorm" for m in together.modules())
    assert torch.equal(together(images), before)
