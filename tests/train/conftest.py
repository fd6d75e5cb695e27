"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from handmade import Sample, write_dataset

from curate.datasets.dataset import Dataset
from train.loop import loop
from train.loop.dry_run import training_flops
from train.loop.method import Method, PreparedBatch

FLOPS: dict[str, float | None] = {}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests share the machine, and small tensors gain nothing from more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _flops_counted_once() -> Iterator[None]:
    """Models of one kind have one number of FLOPs, and counting takes as long as a few steps of a small one."""

    def counted(method: Method, prepared: PreparedBatch) -> float | None:
        shapes = [column.shape for column in prepared.inputs]
        kind = str((method.spec, shapes, [p.shape for p in method.module.parameters()]))
        if kind not in FLOPS:
            FLOPS[kind] = training_flops(method, prepared)
        return FLOPS[kind]

    with pytest.MonkeyPatch.context() as patch:  # the test's own would outlast what it watches
        patch.setattr(loop, "training_flops", counted)
        yield


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a dataset under the test's folder: `dataset(samples, name=…, classes=…, sharded=…)`."""

    def write(
        samples: list[Sample], name: str = "set", *, classes: int = 4, sharded: bool = False
    ) -> Dataset:
        return write_dataset(tmp_path / name, samples, classes=classes, sharded=sharded)

    return write
