"""Each method learns something on real images, from nothing, in half a minute on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.recipes.recipe import parse
from train.methods import registry

CLASSES = 10

# What each may be told, what is measured, and how many times chance (10 %) it must be at least.
LEARN: dict[str, tuple[dict[str, Any], str, float]] = {
    "supervised": ({"model": "convnet", "image_size": 32, "epochs": 20, "lr": 3e-3}, "top1", 3.0),
    "clip": (
        {"preset": "small", "image_size": 32, "text_width": 64, "batch_size": 128, "epochs": 20},
        "zeroshot_top1",
        2.0,
    ),
    "simclr": (
        {"model": "convnet", "image_size": 32, "batch_size": 128, "epochs": 20, "hidden_dim": 256},
        "knn",
        2.0,
    ),
}


@pytest.fixture(scope="module")
def ten(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten classes of tiny-imagenet, 90 images each to learn from and 20 held out, with captions."""
    recipe = parse(
        {
            "name": "ten",
            "source": {"folder": str(tiny)},
            "steps": [
                {"classes": {"number": CLASSES}},
                {"split": {"images": {"val": 20}}},
                {"caption": {"templates": ["a photo of a {}.", "a picture of one {}."]}},
            ],
        }
    )
    [built] = build(recipe, tmp_path_factory.mktemp("ten") / "set", overlay=True)
    return built.dataset


@pytest.mark.parametrize("name", LEARN)
def test_a_method_beats_chance_by_far_on_images_that_it_has_not_seen(
    ten: Dataset, tmp_path: Path, name: str
) -> None:
    options, metric, factor = LEARN[name]
    torch.set_num_threads(2)
    config = registry.config_of(name, {"device": "cpu", "workers": 2, "log_steps": 1, **options}, "here")
    run = registry.method(name).train(ten, tmp_path / "run", config)
    print(f"{name}: {run.info.metrics}, {run.info.seconds:.0f} s")
    assert run.info.metrics[metric] >= factor / CLASSES
