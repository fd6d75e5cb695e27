"""Fine-tuning learns what frozen features cannot tell, the same way each time."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from built_tasks import StridedRun
from torch import Tensor

from train.runs import Run
from train.transfer import Finetune, Linear, Task
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.protocols._finetuning import Hyperparameters, shift
from train.transfer.shots import draw_shots

TRIAL = Hyperparameters(1e-3, 0.1, 10)
QUICK = Finetune(lrs=(3e-3,), min_steps=20, max_steps=20, batch_size=16)


@pytest.fixture(scope="module")
def dots(scratch: Run, dots_task: Task) -> RunFeatures:
    run = StridedRun(scratch.path, scratch.info)
    return RunFeatures(run, dots_task, image_size=16, device=torch.device("cpu"))


def accuracy(outcome: ProtocolResult) -> float:
    return next(score.value for score in outcome.scores if score.metric == "top1")


def test_fine_tuning_learns_what_a_probe_does_not(dots: RunFeatures) -> None:
    train = dots.images.train
    drawn = draw_shots(train.keys, train.targets, "full", seed=0)
    probed = accuracy(Linear().measure(dots, drawn))
    outcome = Finetune(lrs=(3e-3,), min_steps=80, max_steps=80).measure(dots, drawn)
    assert 0.25 < probed < 0.75
    assert accuracy(outcome) > 0.9
    assert outcome.chosen == {"lr": 3e-3, "weight_decay": 0.1, "epochs": 10, "steps": 80}


def test_equal_seeds_give_equal_predictions_and_others_do_not(dots: RunFeatures) -> None:
    train = dots.images.train
    drawn = draw_shots(train.keys, train.targets, 5, seed=0)
    seeds = [dataclasses.replace(drawn, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (QUICK.train(dots, one, dots.model, TRIAL).head.weight for one in seeds)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_fitting_leaves_the_runs_weights_and_the_generator_alone(dots: RunFeatures) -> None:
    before = {name: value.clone() for name, value in dots.model.state_dict().items()}
    state = torch.get_rng_state()
    train = dots.images.train
    fitted = QUICK.train(dots, draw_shots(train.keys, train.targets, 10, seed=0), dots.model, TRIAL)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in dots.model.state_dict().items())
    assert not all(torch.equal(value, before[name]) for name, value in fitted.state_dict().items())


def test_learning_rate_that_diverges_is_not_chosen(dots: RunFeatures) -> None:
    train = dots.images.train
    drawn = draw_shots(train.keys, train.targets, 5, seed=0)
    protocol = Finetune(lrs=(1e30, 1e-3), min_steps=10, max_steps=10)
    assert protocol.measure(dots, drawn).chosen["lr"] == 1e-3


def test_one_shot_takes_the_fixed_learning_rate(dots: RunFeatures) -> None:
    train = dots.images.train
    protocol = Finetune(fixed_lr=2e-3, min_steps=2, max_steps=2)
    outcome = protocol.measure(dots, draw_shots(train.keys, train.targets, 1, seed=0))
    assert (outcome.select, outcome.chosen["lr"]) == ("fixed", 2e-3)


def test_validation_fits_on_the_draw_less_what_it_chooses_by(dots: RunFeatures, monkeypatch) -> None:
    train = dots.images.train
    drawn = draw_shots(train.keys, train.targets, 5, seed=0)
    seen: list[set[int]] = []
    genuine = Finetune.train

    def watched(self, features, drawn, *rest):
        seen.append(set(drawn.rows.tolist()))
        return genuine(self, features, drawn, *rest)

    monkeypatch.setattr(Finetune, "train", watched)
    Finetune(lrs=(1e-3, 3e-3), min_steps=2, max_steps=2).measure(dots, drawn)
    assert [len(rows) for rows in seen] == [16, 16, 20]  # one of five held out, then all
    assert seen[0] == seen[1] < seen[2] == set(drawn.rows.tolist())


def test_steps_follow_the_images_between_their_bounds() -> None:
    protocol = Finetune(batch_size=64, min_steps=60, max_steps=5000)
    assert [protocol.total_steps(n, 10) for n in (5, 640, 6400, 1_000_000)] == [60, 100, 1000, 5000]


def test_schedule_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [Finetune().rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0 == rates[9]
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 <= rates[-1] < 0.001
    assert Finetune().rate(0, 1) == 1.0


def ramp(count: int) -> Tensor:
    """Return images whose every column, and every row, is of its own value."""
    along = torch.arange(16)
    return (along[None, :] * 3 + along[:, None] * 5).to(torch.uint8).expand(count, 3, 16, 16)


def test_augmentation_shifts_and_mirrors_by_chance() -> None:
    images = ramp(200)
    moved = shift(images, 0.125, flip=True, generator=torch.Generator().manual_seed(0))
    assert (moved.shape, moved.dtype) == (images.shape, torch.uint8)
    middle = moved[:, 0, 7, 7].int() - moved[:, 0, 7, 8].int()  # -3 as it was, 3 mirrored
    assert set(middle.tolist()) == {-3, 3}
    assert 60 < (middle == 3).sum() < 140  # half of 200, standard deviation 7
    assert len(set(moved[middle == -3][:, 0, 7, 7].tolist())) > 10  # 25 shifts, and most differ


def test_digits_are_never_mirrored() -> None:
    moved = shift(ramp(200), 0.125, flip=False, generator=torch.Generator().manual_seed(0))
    assert set((moved[:, 0, 7, 7].int() - moved[:, 0, 7, 8].int()).tolist()) == {-3}


def test_augmentation_of_no_shift_and_no_mirror_is_the_image() -> None:
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    moved = shift(images, 0.125, flip=False, generator=torch.Generator().manual_seed(0))
    same = (moved == images).flatten(1).all(dim=1)
    assert 0 < same.sum() < 15  # one shift of 25 is none
