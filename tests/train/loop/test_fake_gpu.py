"""A step of each method on a GPU that is not there: nothing waits for it, and images keep their layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from campaigns import masses
from captioned import described
from fake_cuda import CUDA, Watch, fake_cuda, on_host
from torch import Tensor
from torch.utils._pytree import tree_leaves

from curate.datasets.dataset import Dataset
from train.augment import chance, color, randaugment, upload
from train.data import loader
from train.loop.distributed import Distributed
from train.loop.optim.train_step import TrainStep
from train.methods import clip, simclr, supervised
from train.methods import registry as methods
from train.models import registry

MakeDataset = Callable[..., Dataset]

METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"model": "resnet18"},
    "supervised, all at once": {
        "model": "resnet18", "mixup": 0.2, "cutmix": 1.0, "randaugment": 2, "ema": 0.9, "clip_norm": 1.0,
        "accumulate": 2,
    },
    "supervised, sgd": {"model": "convnet", "optimizer": "sgd"},
    "supervised, resnet50": {"model": "resnet50", "optimizer": "sgd"},
    "clip": {"model": "convnet", "text_width": 32, "text_layers": 1, "context_length": 16},
    "clip, siglip": {"model": "convnet", "text_width": 32, "text_layers": 1, "context_length": 16, "loss": "siglip"},
    "clip, RN50": {"model": "RN50", "image_size": 64, "loss": "siglip"},
    "simclr": {"model": "convnet", "hidden_dim": 32, "projection_dim": 16, "solarize_share": 0.5},
    "simclr, in pieces": {"model": "convnet", "hidden_dim": 32, "projection_dim": 16, "accumulate": 2, "ema": 0.9},
}  # fmt: skip
LARGE = ("supervised, resnet50", "clip, RN50")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A GPU that is not there; what stays on the host computes as ever."""
    for module in (supervised, simclr):
        monkeypatch.setattr(module, "build", on_host(module.build))
    monkeypatch.setattr(clip, "build_dual_encoder", on_host(clip.build_dual_encoder))
    monkeypatch.setattr(clip.Tokenizer, "__call__", on_host(clip.Tokenizer.__call__))
    monkeypatch.setattr(clip.DualEncoder, "cropped", on_host(clip.DualEncoder.cropped))
    monkeypatch.setattr(randaugment, "_table", on_host(randaugment._table))
    monkeypatch.setattr(loader._Fill, "__call__", on_host(loader._Fill.__call__))
    kept = (registry._pixels, color._taps)  # what a device keeps for later must not outlast it
    for cache in kept:
        cache.cache_clear()
    with fake_cuda() as watch:
        yield watch
    for cache in kept:
        cache.cache_clear()


def learner_of(data: Dataset, name: str, **changes: Any) -> tuple[TrainStep, Iterator[loader.Batch]]:
    method = name.partition(",")[0]
    module = methods.method(method)
    told = {"image_size": 32, "batch_size": 8, "epochs": 1, "workers": 0, **METHODS[name], **changes}
    config = methods.config_of(method, told, "test")
    more = {"quiet": True} if method == "clip" else {}
    prepared, batches = module._prepare(data, config, None, CUDA, Distributed(), **more)
    prepared.module.train()
    train_step = TrainStep(prepared, config, Distributed(), CUDA, total_steps=10, steps_per_epoch=2)
    return train_step, batches.batches()


@pytest.mark.parametrize("name", masses(METHODS, {*METHODS}.difference(LARGE).__contains__))
def test_a_step_stays_on_the_gpu_and_waits_for_nothing(dataset: MakeDataset, gpu: Watch, name: str) -> None:
    train_step, batches = learner_of(dataset(described(32)), name)
    train_step.step(train_step.prepare_batch(next(batches)), 0)  # the first fills caches
    gpu.clear()
    prepared = train_step.prepare_batch(next(batches))
    loss = train_step.step(prepared, 1)
    assert gpu.waits == gpu.mixed == gpu.unlaid == []
    assert len(gpu.convolved) > 3
    assert all(gpu.convolved)
    assert sum(gpu.operators.values()) > 100
    held = [loss, *prepared.inputs, *prepared.targets, *train_step.measured_module.state_dict().values()]
    held += [
        one for one in tree_leaves(train_step.optimizer.state_dict()["state"]) if isinstance(one, Tensor)
    ]
    assert all(one.is_cuda for one in held)


@pytest.mark.parametrize(
    "options", [{"cache": "device"}, {"cache": "memory"}, {"cache": "none"}, {"min_area": 0.5}]
)
def test_a_batch_of_any_cache_waits_for_nothing(
    dataset: MakeDataset, gpu: Watch, options: dict[str, Any]
) -> None:
    train_step, batches = learner_of(dataset(described(32)), "supervised", crop_from="square", **options)
    train_step.prepare_batch(next(batches))  # the first fills caches
    gpu.clear()
    train_step.prepare_batch(next(batches))
    assert gpu.waits == gpu.mixed == []


def test_randaugment_takes_few_operators(gpu: Watch) -> None:
    images_B3HW = torch.zeros(256, 3, 64, 64, dtype=torch.uint8, device=CUDA)
    gpu.clear()
    randaugment.RandAugment(2, 9)(images_B3HW, chance.of_keys([str(i) for i in range(256)], seed=0), 0)
    assert gpu.waits == gpu.mixed == []
    assert sum(gpu.operators.values()) < 300  # with torchvision's, by operation and sign, 965


def test_what_waits_is_seen(gpu: Watch) -> None:
    """What the tests above would miss, they could not tell."""
    values = torch.zeros(4, 3, 8, 8, device=CUDA)
    waiting: dict[str, Callable[[], object]] = {
        "a number": lambda: values.sum().item(),
        "a truth": lambda: bool(values.sum() > 0),
        "a copy to the host": lambda: values.cpu(),
        "a list": lambda: torch.tensor([1.0, 2.0], device=CUDA),
        "pageable memory": lambda: torch.from_numpy(np.zeros(3)).to(CUDA, non_blocking=True),
        "a blocking copy": lambda: torch.from_numpy(np.zeros(3)).pin_memory().to(CUDA),
        "an index on the host": lambda: values[torch.zeros(2, dtype=torch.int64)],
    }
    for name, wait in waiting.items():
        gpu.clear()
        wait()
        assert len(gpu.waits) == 1, name
    for choose in (lambda: values[values > 0], lambda: values.nonzero()):
        with pytest.raises(AssertionError, match="alone knows the shape"):
            choose()
    gpu.clear()
    upload.upload(np.zeros(3), CUDA)
    values[values > 0] = 0.0
    assert gpu.waits == []
    laid = values.contiguous(memory_format=torch.channels_last)
    torch.cat([laid[1:], laid[:1]])
    assert gpu.unlaid == []
    laid.roll(1, dims=0)
    assert len(gpu.unlaid) == 1
