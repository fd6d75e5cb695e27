"""Transfer on a GPU gives what it gives on a CPU, but for the last digits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train.runs import Run
from train.transfer import Finetune, Task, transfer
from train.transfer.images import SquareView, StoredImages, load_images

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


def values(run: Run, task: Task, out: Path, device: str, protocols: list) -> dict[tuple, float]:
    rows = transfer(run, [task], shots=[5, "full"], seeds=1, protocols=protocols, out=out, device=device)
    return {(r["protocol"], r["shots"], r["metric"]): r["value"] for r in rows.to_pylist()}


def test_frozen_features_tell_the_same_on_both(scratch: Run, digits: Task, tmp_path: Path) -> None:
    protocols = ["linear", "ridge", "knn", "induction"]
    here, there = (values(scratch, digits, tmp_path / f"{d}.parquet", d, protocols) for d in ("cpu", "cuda"))
    assert here.keys() == there.keys()
    for cell, value in here.items():
        assert there[cell] == pytest.approx(value, abs=0.01), cell  # 6 of 599 images


def test_fine_tuning_learns_and_repeats_itself(scratch: Run, dots_task: Task, tmp_path: Path) -> None:
    protocol = Finetune(lrs=(3e-3,), min_steps=300, max_steps=300)
    first, again = (
        values(scratch, dots_task, tmp_path / f"{i}.parquet", "cuda", [protocol]) for i in range(2)
    )
    assert first["finetune", "full", "top1"] > 0.8  # chance is 0.25
    for cell, value in first.items():
        assert again[cell] == pytest.approx(value, abs=0.03)


def test_images_stay_on_the_device(digits: Task) -> None:
    squares = load_images(digits, SquareView(16)).train.squares
    assert isinstance(squares, StoredImages)
    device = torch.device("cuda")
    assert squares.on(device).is_cuda
    assert squares.on(device).data_ptr() == squares.on(device).data_ptr()
