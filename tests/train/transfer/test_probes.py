"""The linear probe against scikit-learn's logistic regression."""

from __future__ import annotations

import dataclasses
import time
import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from train.transfer.features import RunFeatures
from train.transfer.protocols import _probes
from train.transfer.protocols._probes import logistic_path
from train.transfer.protocols.linear import COARSE, PUBLISHED, Linear
from train.transfer.shots import draw_shots, make_folds


def sklearn_predictions(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, c: float, tol: float = 1e-4
) -> np.ndarray:
    """Return what scikit-learn's pipeline of the same kind says."""
    scaler = StandardScaler().fit(train)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=10_000, tol=tol).fit(scaler.transform(train), labels)
    return model.predict(scaler.transform(test))


@pytest.mark.parametrize("shots", [1, 5, 40])
def test_probe_agrees_with_scikit_learn(digits_features: RunFeatures, shots) -> None:
    train, test = digits_features.images.train, digits_features.images.test
    drawn = draw_shots(train.keys, train.targets, shots, seed=0)
    features_KD = digits_features.frozen().train[drawn.rows]
    assert (len(drawn) < features_KD.shape[1]) == (shots < 40)  # so both ways to solve it are taken
    cs = (1e-4, 1e-2, 0.1, 1.0, 10.0)
    for probe in logistic_path(features_KD, torch.from_numpy(drawn.targets), cs, classes=10):
        ours = probe.logits(digits_features.frozen().test).argmax(1).numpy()
        theirs = sklearn_predictions(
            features_KD.double().numpy(),
            drawn.targets,
            digits_features.frozen().test.double().numpy(),
            probe.strength,
            tol=1e-7,
        )
        # 0.2 points of 599 images are 1.2 of them
        assert abs((ours == test.targets).sum() - (theirs == test.targets).sum()) <= 1
        assert (ours == theirs).mean() > 0.99


def test_probability_of_each_class_agrees_with_scikit_learn(digits_features: RunFeatures) -> None:
    train = digits_features.images.train
    drawn = draw_shots(train.keys, train.targets, 5, seed=0)
    features = digits_features.frozen().train[drawn.rows].double()
    (probe,) = logistic_path(features, torch.from_numpy(drawn.targets), [0.1], classes=10)
    scaler = StandardScaler().fit(features.numpy())
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(
        scaler.transform(features), drawn.targets
    )
    test = digits_features.frozen().test
    theirs = model.predict_proba(scaler.transform(test.double()))
    assert np.abs(probe.logits(test).softmax(1).numpy() - theirs).max() < 0.005


def test_random_features_of_digits_are_well_above_chance(digits_features: RunFeatures) -> None:
    train, test = digits_features.images.train, digits_features.images.test
    outcome = Linear().measure(digits_features, draw_shots(train.keys, train.targets, "full", seed=0))
    top1 = next(score for score in outcome.scores if score.metric == "top1")
    assert top1.n == len(test.targets)
    assert top1.value > 0.8  # chance is 0.1


def test_chosen_c_is_the_best_over_the_folds(digits_features: RunFeatures) -> None:
    train = digits_features.images.train
    drawn = draw_shots(train.keys, train.targets, 5, seed=1)
    outcome = Linear(grid="coarse").measure(digits_features, drawn)
    features = digits_features.frozen().train[drawn.rows].double().numpy()
    right = {}
    for c in COARSE:
        right[c] = sum(
            (
                sklearn_predictions(features[f.train], drawn.targets[f.train], features[f.validation], c)
                == drawn.targets[f.validation]
            ).sum()
            for f in make_folds(drawn, count=5)
        )
    assert min(right.values()) < max(right.values())
    assert outcome.select == "validation"
    assert right[outcome.chosen["c"]] >= max(right.values()) - 1


def test_one_shot_takes_the_fixed_c(digits_features: RunFeatures) -> None:
    train = digits_features.images.train
    outcome = Linear(fixed_c=0.5).measure(digits_features, draw_shots(train.keys, train.targets, 1, seed=0))
    assert (outcome.select, outcome.chosen) == ("fixed", {"c": 0.5})


def test_published_grid_is_that_of_the_protocol_and_the_coarse_one_inside_it() -> None:
    assert len(PUBLISHED) == 45
    assert np.allclose([PUBLISHED[0], PUBLISHED[-1]], [1e-6, 1e5])
    assert np.allclose(np.log10(COARSE), range(-6, 6))
    assert set(COARSE) < set(PUBLISHED)


def test_features_that_never_vary_do_no_harm() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    features = torch.randn(40, 3, generator=generator) + labels[:, None] * 4
    features[:, 1] = 7.0
    (probe,) = logistic_path(features, labels, [1.0], classes=2)
    assert (probe.logits(features).argmax(1) == labels).float().mean() > 0.95


def test_five_shots_take_well_under_a_second(digits_features: RunFeatures) -> None:
    train = digits_features.images.train
    drawn = draw_shots(train.keys, train.targets, 5, seed=0)
    Linear().measure(digits_features, drawn)  # the first imports what the optimiser needs
    start = time.process_time()
    Linear().measure(digits_features, drawn)
    assert time.process_time() - start < 1.5  # about 0.3 s


def test_settings_are_told_apart() -> None:
    assert dataclasses.asdict(Linear()) != dataclasses.asdict(Linear(grid="published"))


@pytest.mark.parametrize(("classes", "where"), [(2, "cpu"), (300_000, "meta")])
def test_what_is_small_is_solved_on_the_cpu_wherever_the_features_are(
    monkeypatch: pytest.MonkeyPatch, classes: int, where: str
) -> None:
    seen = []
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.zeros(self.shape, dtype=self.dtype))
    for way in ("_on_cpu", "_on_device"):
        monkeypatch.setattr(
            _probes, way, lambda _, start, *__, way=way: seen.append((way, start.device.type)) or start
        )
    monkeypatch.setattr(_probes, "_span", lambda x_ND: x_ND.T[:, :6])
    features_ND, targets = torch.empty(6, 20, device="meta"), torch.empty(6, dtype=torch.int64, device="meta")
    [probe] = _probes.logistic_path(features_ND, targets, [1.0], classes=classes)
    assert seen == [("_on_cpu" if where == "cpu" else "_on_device", where)]
    assert probe.weights.device.type == probe.bias.device.type == "meta"
    assert probe.weights.shape == (20, classes)
