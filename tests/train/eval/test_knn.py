"""Nearest neighbours: exact, in any blocks, and voting as their weights say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from curate.errors import DataError, RecipeError
from train.eval import knn
from train.eval.knn import nearest, votes


def features(count: int, seed: int, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def by_hand(
    queries: np.ndarray, bank: np.ndarray, labels: np.ndarray, k: int, temperature: float
) -> np.ndarray:
    """Weigh one query after another, in float64."""
    bank = bank / np.linalg.norm(bank.astype(np.float64), axis=1, keepdims=True)
    answer = np.zeros((len(queries), labels.max() + 1))
    for i, query in enumerate(queries.astype(np.float64)):
        cosines = bank @ (query / np.linalg.norm(query))
        for row in np.argsort(-cosines)[:k]:
            answer[i, labels[row]] += np.exp(cosines[row] / temperature)
    return answer


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (1000, 0.1)])
def test_votes_are_those_of_a_search_by_hand(k: int, temperature: float) -> None:
    queries, bank = features(90, 0), features(300, 1)
    labels = np.random.default_rng(2).integers(0, 7, 300)
    expected = by_hand(queries, bank, labels, k, temperature)
    ours = votes(
        *map(torch.from_numpy, (queries, bank, labels)), classes=7, k=k, temperature=temperature
    ).numpy()
    normed = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in (queries, bank)]
    nearest_Q1 = (normed[0] @ normed[1].T).max(axis=1, keepdims=True)
    np.testing.assert_allclose(ours * np.exp(nearest_Q1 / temperature), expected, rtol=2e-5)
    np.testing.assert_array_equal(ours.argmax(axis=1), expected.argmax(axis=1))


def test_classes_are_those_of_scikit_learn() -> None:
    queries, bank = features(200, 3), features(500, 4)
    labels = np.random.default_rng(5).integers(0, 4, 500)
    peer = KNeighborsClassifier(
        11, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.2)
    ).fit(bank, labels)
    ours = votes(*map(torch.from_numpy, (queries, bank, labels)), classes=4, k=11, temperature=0.2)
    np.testing.assert_array_equal(ours.argmax(dim=1).numpy(), peer.predict(queries))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = torch.from_numpy(features(50, 6)), torch.from_numpy(features(70, 7))
    whole = nearest(queries, bank, 9)
    monkeypatch.setattr(knn, "BLOCK_BYTES", 4 * 70 * 8)  # eight rows at a time
    parts = nearest(queries, bank, 9)
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0])
    assert (whole[0].diff(dim=1) <= 0).all()


def test_a_row_is_its_own_nearest_whatever_its_length() -> None:
    bank = torch.from_numpy(features(40, 8))
    cosines, rows = nearest(bank * 7.5, bank, 1)
    assert rows[:, 0].tolist() == list(range(40))
    torch.testing.assert_close(cosines, torch.ones(40, 1))


def test_a_small_temperature_does_not_overflow() -> None:
    bank = torch.from_numpy(features(40, 9))
    labels = torch.arange(40) % 4
    drawn = votes(bank, bank, labels, classes=4, k=40, temperature=0.001)
    assert torch.isfinite(drawn).all()
    assert torch.equal(drawn.argmax(dim=1), labels)


def test_what_cannot_be_meant_is_refused() -> None:
    bank, labels = torch.from_numpy(features(4, 0)), torch.arange(4)
    with pytest.raises(RecipeError, match="k is 0"):
        votes(bank, bank, labels, classes=4, k=0)
    with pytest.raises(RecipeError, match="temperature is 0"):
        votes(bank, bank, labels, classes=4, temperature=0.0)
    with pytest.raises(DataError, match="no labelled rows"):
        votes(bank, bank[:0], labels[:0], classes=4)
