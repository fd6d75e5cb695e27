"""Top-1 and top-5, against numpy's own sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from train.eval.accuracy import Accuracy


@pytest.mark.parametrize("classes", [3, 5, 6, 40])
def test_shares_are_those_of_sorted_scores_whatever_the_batches(classes: int) -> None:
    generator = np.random.default_rng(classes)
    scores_NC, labels_N = generator.normal(size=(100, classes)), generator.integers(0, classes, 100)
    ranks_N = (scores_NC > scores_NC[np.arange(100), labels_N][:, None]).sum(axis=1)
    expected = {"top1": (ranks_N < 1).mean()} | ({"top5": (ranks_N < 5).mean()} if classes > 5 else {})
    for size in (100, 7):
        counted = Accuracy()
        for start in range(0, 100, size):
            rows = slice(start, start + size)
            likeliest_B = counted.add(torch.from_numpy(scores_NC[rows]), torch.from_numpy(labels_N[rows]))
            assert likeliest_B.tolist() == scores_NC[rows].argmax(axis=1).tolist()
        assert counted.shares() == pytest.approx(expected, abs=1e-12)
        assert counted.seen == 100


def test_rows_without_a_label_are_left_out() -> None:
    counted = Accuracy()
    counted.add(torch.eye(7), torch.tensor([0, 1, 2, -1, -1, 4, -1]))
    assert counted.seen == 4
    assert counted.shares()["top1"] == 3 / 4
