"""Runs on disk: what they hold, what they give back, and what is said when they are not what they seem."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from handmade import pictures

from curate.datasets import Dataset
from curate.errors import DataError, RecipeError
from train.models import build
from train.runs import Run, open_run, scratch_run
from train.supervised import SupervisedConfig, train


@pytest.fixture
def run(dataset: Callable[..., Dataset], tmp_path: Path) -> Run:
    config = SupervisedConfig(model="convnet", image_size=16, epochs=2, batch_size=8, seed=3, device="cpu")
    return train(dataset(pictures(16)), tmp_path / "run", config)


def test_a_run_says_what_made_it(run: Run) -> None:
    info = open_run(run.path).info
    assert info == run.info
    assert (info.method, info.steps, info.samples_seen, info.seed) == ("supervised", 4, 32, 3)
    assert (info.dataset.rows, info.dataset.classes) == (16, 4)  # type: ignore[union-attr]
    assert info.config["image_size"] == 16
    assert info.machine.torch == torch.__version__
    data = (run.path / "model.safetensors").read_bytes()
    assert run.digest == "sha256:" + hashlib.sha256(data).hexdigest()


def test_its_backbone_gives_the_features_that_its_head_was_trained_on(run: Run) -> None:
    images = torch.rand(2, 3, 16, 16)
    model, backbone = run.model(), run.backbone()
    assert not model.training
    assert not backbone.training
    assert torch.equal(model.head(backbone(images)), model(images))
    assert backbone(images).shape == (2, backbone.feature_dim)
    start = build("convnet", num_classes=4, image_size=16, seed=3).eval()
    assert not torch.allclose(start.backbone(images), backbone(images))


def test_a_fresh_head_has_its_own_size_and_seed(run: Run) -> None:
    first, again, other = (run.model(num_classes=9, seed=seed) for seed in (0, 0, 1))
    assert first.head.out_features == 9
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert torch.equal(first.backbone.stages[0].weight, run.model().backbone.stages[0].weight)


def test_scratch_is_the_start_of_a_run_that_never_was(run: Run) -> None:
    scratch = scratch_run(run.spec, seed=3)
    start = build("convnet", num_classes=4, image_size=16, seed=3)
    assert torch.equal(scratch.backbone().backbone.stages[0].weight, start.backbone.stages[0].weight)
    assert torch.equal(
        scratch.model(num_classes=7, seed=8).backbone.stages[0].weight, start.backbone.stages[0].weight
    )
    assert scratch.digest == scratch_run(run.spec, seed=3).digest
    assert scratch.digest not in (run.digest, scratch_run(run.spec, seed=4).digest)
    assert scratch.info.dataset is None


def test_weights_that_were_changed_are_not_used(run: Run) -> None:
    path = run.path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="not the weights"):
        open_run(run.path).backbone()
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_run(run.path).backbone()


def test_what_is_no_run_is_refused_with_advice(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not a run") as caught:
        open_run(tmp_path / "nowhere")
    assert "curate train" in str(caught.value.hint)
    with pytest.raises(RecipeError, match="a folder of runs") as caught:
        open_run(tmp_path)
    assert str(run.path) in str(caught.value.hint)
    document = json.loads((run.path / "run.json").read_text())
    for changes, words in [({"format": 9}, "format 9"), ({"steps": "many"}, "steps: ")]:
        (run.path / "run.json").write_text(json.dumps(document | changes))
        with pytest.raises(DataError, match=words):
            open_run(run.path)
    (run.path / "run.json").unlink()
    with pytest.raises(RecipeError, match="unfinished"):
        open_run(run.path)
