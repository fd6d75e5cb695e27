"""Runs on disk: what they hold, what they give back, and what is said when they are not what they seem."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from handmade import pictures
from safetensors.torch import save
from torchvision.transforms import functional

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from train.loop.metrics.throughput import memory_bytes
from train.methods.supervised import SupervisedConfig, train
from train.models.registry import build, normalize
from train.runs import Run, open_run, scratch_run


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


def test_weights_of_another_model_and_none_at_all_are_refused(run: Run) -> None:
    document = json.loads((run.path / "run.json").read_text())
    for data, words in [
        (b"no tensors at all", "no weights"),
        (save({"backbone.odd": torch.zeros(1)}), "weights of another model"),
    ]:
        (run.path / "model.safetensors").write_bytes(data)
        sealed = document | {"weights": "sha256:" + hashlib.sha256(data).hexdigest()}
        (run.path / "run.json").write_text(json.dumps(sealed))
        with pytest.raises(DataError, match=words):
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


def test_a_run_is_seen_through_the_mean_and_spread_it_was_trained_by(run: Run) -> None:
    document = json.loads((run.path / "run.json").read_text())
    assert document["spec"]["mean"] == [0.485, 0.456, 0.406]
    assert document["spec"]["std"] == [0.229, 0.224, 0.225]
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(run.spec.normalize(images), normalize(images))
    others = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.1]}
    (run.path / "run.json").write_text(json.dumps(document | {"spec": document["spec"] | others}))
    other = open_run(run.path)
    expected = functional.normalize(images / 255, others["mean"], others["std"])
    torch.testing.assert_close(other.spec.normalize(images), expected, atol=1e-5, rtol=1e-5)
    assert other.model().spec.mean == other.model(num_classes=2).spec.mean == (0.5, 0.4, 0.3)
    del document["spec"]["mean"], document["spec"]["std"]  # as versions of before wrote it
    (run.path / "run.json").write_text(json.dumps(document))
    assert open_run(run.path).spec == run.spec
    (run.path / "run.json").write_text(
        json.dumps(document | {"spec": document["spec"] | {"std": [0.2, 0, 0.2]}})
    )
    with pytest.raises(DataError, match=r"spec\.std"):
        open_run(run.path)


@pytest.mark.parametrize(("platform", "bytes_"), [("darwin", 5_000_000), ("linux", 5_120_000_000)])
def test_the_peak_of_memory_is_told_in_bytes(
    monkeypatch: pytest.MonkeyPatch, platform: str, bytes_: int
) -> None:
    usage = SimpleNamespace(ru_maxrss=5_000_000)
    monkeypatch.setattr("curate.io.memory.resource.getrusage", lambda _: usage)
    monkeypatch.setattr("curate.io.memory.sys.platform", platform)
    assert memory_bytes(torch.device("cpu")) == bytes_
