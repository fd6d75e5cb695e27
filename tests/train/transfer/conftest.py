"""What the tests of transfer share: small tasks, made here, and a small run without pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from built_tasks import SIDE, dots, make_split
from PIL import Image
from threadpoolctl import threadpool_limits

from train.models.registry import ModelSpec
from train.runs import Run, scratch_run
from train.transfer import Split, Task, open_tasks
from train.transfer.features import RunFeatures


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tests share the machine, and small tensors gain nothing from more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):  # scikit-learn's
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def scratch() -> Run:
    """A small network with random weights, at 16 px."""
    return scratch_run(ModelSpec("convnet", "imagenet", 10, SIDE))


@pytest.fixture(scope="session")
def digits() -> Task:
    """The digits; decoded once for all tests."""
    return open_tasks("digits")[0]


@pytest.fixture(scope="session")
def digits_features(scratch: Run, digits: Task) -> RunFeatures:
    """The small network on the digits; features computed once for all tests."""
    return RunFeatures(scratch, digits, image_size=SIDE, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def dots_task() -> Task:
    """Four classes that differ by where one dot lies of another: 50 images each to train on, 50 to test on."""
    names = ("right", "below", "left", "above")
    return Task("dots", names, dots(50, 0, "train-"), dots(50, 1, "test-"), flip=False)


@pytest.fixture
def tiny_task() -> Task:
    """Three classes of noise of different brightness: 6, 6 and 2 images to train on, 4 each to test on."""
    generator = np.random.default_rng(0)

    def side(sizes: list[int], prefix: str) -> Split:
        labels = [label for label, size in enumerate(sizes) for _ in range(size)]
        noise = generator.integers(0, 40, (len(labels), 8, 8, 3))
        return make_split(
            (noise + np.array(labels)[:, None, None, None] * 80).astype(np.uint8), labels, prefix
        )

    return Task("tiny", ("dark", "grey", "light"), side([6, 6, 2], "train-"), side([4, 4, 4], "test-"))


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write PNGs, each of a colour of its own: `make_folder({"train/cat": 3, "test/cat": 2})`."""

    def write(sizes: dict[str, int], name: str = "pictures") -> Path:
        root = tmp_path / name
        generator = np.random.default_rng(0)
        for place, count in sizes.items():
            (root / place).mkdir(parents=True)
            for i in range(count):
                colour = tuple(int(v) for v in generator.integers(0, 256, 3))
                Image.new("RGB", (12, 10), colour).save(root / place / f"{i}.png")
        return root

    return write
