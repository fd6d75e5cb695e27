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
from train.transfer.features import Subject
from train.transfer.protocols._finetuning import Trial
from train.transfer.shots import draw

TRIAL = Trial(1e-3, 0.1, 10)


@pytest.fixture
def subject(scratch: Run, dots_task: Task) -> Subject:
    """A small network on a small task, whose images were decoded before."""
    found = Subject(StridedRun(scratch.path, scratch.info), dots_task, image_size=16, device=CUDA)
    for augment in ("shift", "crop"):
        found.seen(Finetune(augment=augment).view(16))
    return found


@pytest.fixture
def gpu(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A GPU that is not there."""
    monkeypatch.setattr(randaugment, "_table", on_host(randaugment._table))
    registry._pixels.cache_clear()
    with fake_cuda() as watch:
        yield watch
    registry._pixels.cache_clear()
    for side in (subject.pixels.train, subject.pixels.test):
        side.squares._placed.clear()


@pytest.mark.parametrize("augment", ["shift", "crop", "randaugment", "none"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_fine_tuning_waits_for_nothing(gpu: Watch, subject: Subject, augment: str, optimizer: str) -> None:
    drawn = draw(subject.keys, subject.targets, 10, seed=0)
    model = subject.model.to(memory_format=torch.channels_last)

    def waits(steps: int) -> list[str]:
        gpu.clear()
        tuning = Finetune(augment=augment, optimizer=optimizer, steps=steps, batch_size=16)
        tuning.train(subject, drawn, model, TRIAL)
        return list(gpu.waits)

    waits(1)  # the images are placed, and stay
    assert waits(5) == []
    assert gpu.mixed == gpu.unlaid == []
    assert len(gpu.convolved) == 15
    assert all(gpu.convolved)


def test_frozen_features_wait_for_nothing_but_whether_all_are_numbers(gpu: Watch, subject: Subject) -> None:
    features = subject.features()
    assert features.train.is_cuda
    assert gpu.mixed == gpu.unlaid == []
    assert [one for one in gpu.waits if "subjects.py" in one and "_forward" not in one] == []
