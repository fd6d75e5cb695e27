"""Small sets with captions: by hand, or as recipes make them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from handmade import Sample, picture, pictures

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.recipes.recipe import load

WORDS = ("red", "green", "blue", "ochre")  # what handmade's colours are called
WNIDS = ("n01440764", "n02084071", "n02121620", "n02958343")  # tench, dog, cat, car: no two share a name


def described(count: int, split: str | None = None) -> list[Sample]:
    """Return pictures whose captions tell their colour and their number."""
    return [
        dataclasses.replace(sample, caption=f"a {WORDS[i % 4]} picture, the number {i}")
        for i, sample in enumerate(pictures(count, split=split))
    ]


def coloured_pool(path: Path, images: int = 12) -> Path:
    """Write a folder of a colour for each of the WNIDS."""
    for label, name in enumerate(WNIDS):
        (path / name).mkdir(parents=True)
        for i in range(images):
            (path / name / f"{name}_{i}.png").write_bytes(picture(100 * label + i, label, (16, 16)))
    return path


def build_steps(folder: Path, pool: Path, steps: list[dict[str, Any]], name: str = "set") -> Dataset:
    """Build a set from a pool by the steps of a recipe."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"name": name, "source": {"folder": str(pool)}, "steps": steps}))
    [built] = build(load(file), folder / name, overlay=True)
    return built.dataset
