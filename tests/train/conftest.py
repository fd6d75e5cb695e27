"""What the tests of training share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from handmade import Sample, write_dataset

from curate.datasets.dataset import Dataset


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests share the machine, and small tensors gain nothing from more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Write a dataset under the test's folder: `dataset(samples, name=…, classes=…, sharded=…)`."""

    def write(
        samples: list[Sample], name: str = "set", *, classes: int = 4, sharded: bool = False
    ) -> Dataset:
        return write_dataset(tmp_path / name, samples, classes=classes, sharded=sharded)

    return write
