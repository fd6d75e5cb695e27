"""Transfer on a GPU that is not there: fine-tuning and frozen features wait for nothing that they need not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from built_tasks import StridedRun
from fake_cuda import CUDA, Watch, fake_cuda, on_host

from train.augment import randaugment
from train.models import registry
from train.runs import Run
from train.transfer import Finetune, Task
from train.transfer.features import RunFeatures
from train.transfer.protocols._finetuning import Hyperparameters
from train.transfer.shots import draw_shots

TRIAL = Hyperparameters(1e-3, 0.1, 10)


@pytest.fixture
def features(scratch: Run, dots_task: Task) -> RunFeatures:
    """A small network on a small task, whose images were decoded before."""
    found = RunFeatures(StridedRun(scratch.path, scratch.info), dots_task, image_size=16, device=CUDA)
    for augment in ("shift", "crop"):
        found.images_at(Finetune(augment=augment).view(16))
    return found


@pytest.fixture
def gpu(features: RunFeatures, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A GPU that is not there."""
    monkeypatch.setattr(randaugment, "_table", on_host(randaugment._table))
    registry._pixels.cache_clear()
    with fake_cuda() as watch:
        yield watch
    registry._pixels.cache_clear()
    for side in (features.images.train, features.images.test):
        side.squares._placed.clear()


@pytest.mark.parametrize("augment", ["shift", "crop", "randaugment", "none"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fine_tuning_waits_for_nothing(
    gpu: Watch, features: RunFeatures, augment: str, optimizer: str
) -> None:
    drawn = draw_shots(features.keys, features.targets, 10, seed=0)
    model = features.model.to(memory_format=torch.channels_last)

    def waits(steps: int) -> list[str]:
        gpu.clear()
        tuning = Finetune(augment=augment, optimizer=optimizer, steps=steps, batch_size=16)
        tuning.train(features, drawn, model, TRIAL)
        return list(gpu.waits)

    waits(1)  # the images are placed, and stay
    assert waits(5) == []
    assert gpu.mixed == gpu.unlaid == []
    assert len(gpu.convolved) == 15
    assert all(gpu.convolved)


def test_frozen_features_wait_for_nothing_but_whether_all_are_numbers(
    gpu: Watch, features: RunFeatures
) -> None:
    frozen = features.frozen()
    assert frozen.train.is_cuda
    assert gpu.mixed == gpu.unlaid == []
    assert [one for one in gpu.waits if "features.py" in one and "_forward" not in one] == []
