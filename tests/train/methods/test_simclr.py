"""SimCLR: it learns to tell images apart without labels, goes on exactly, and says what is wrong before it begins."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import Sample, pictures
from PIL import Image
from several import together
from torch import Tensor

from curate.datasets.dataset import Dataset, open_dataset
from curate.errors import DataError, RecipeError
from train.augment import chance
from train.data.loader import Loader
from train.eval.knn import votes
from train.loop.config import parse
from train.methods import simclr
from train.methods.registry import config_of
from train.methods.simclr import PRESETS, SimclrConfig, SimCLRModel, prepare_batch, train
from train.models.registry import MEAN, STD
from train.runs import Run, open_run

MakeDataset = Callable[..., Dataset]
SMALL = SimclrConfig(
    model="convnet", image_size=16, epochs=3, batch_size=8, workers=0, device="cpu", hidden_dim=32,
    projection_dim=16, projector_layers=2, log_steps=2, knn_k=5,
)  # fmt: skip


def with_(**changes: Any) -> SimclrConfig:
    return dataclasses.replace(SMALL, **changes)


def lines(run: Run) -> list[dict[str, Any]]:
    """The log, less what depends on the clock and the machine."""
    logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    kept = (
        "step",
        "epoch",
        "loss",
        "lr",
        "nt_xent",
        "probe",
        "samples_fingerprint",
        "measured",
        "final",
    )
    return [{name: line[name] for name in kept if name in line} for line in logged]


def unlabelled(count: int) -> list[Sample]:
    return [dataclasses.replace(sample, label=None) for sample in pictures(count)]


def pattern(number: int) -> bytes:
    """Return an image of nine tiles of colours of its own."""
    tiles = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(tiles).resize((18, 18), Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def test_it_tells_24_images_apart(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset([Sample(f"all/{i}", None, pattern(i)) for i in range(24)])
    config = with_(
        epochs=60,
        batch_size=24,
        lr=3e-3,
        temperature=0.2,
        min_area=0.6,
        jitter=0.25,
        blur_share=0.0,
        grey_share=0.0,
    )
    run = train(data, tmp_path / "run", config, quiet=True)
    floor = math.log(
        1 + 46 * math.exp(-1 / 0.2)
    )  # 0.27: a sample's views are one, all others at right angles
    assert lines(run)[0]["loss"] > 3  # of log(47), 3.85, at first
    assert run.info.metrics["loss"] < 1.4
    assert run.info.metrics["loss"] > floor - 0.1
    net = run.backbone()
    fresh = Loader(
        data,
        batch_size=24,
        image_size=16,
        seed=9,
        augment=True,
        min_area=0.6,
        views=2,
        workers=0,
        need_labels=False,
    )
    (batch,) = fresh.epoch(0)
    with torch.inference_mode():
        first, second = (net(simclr.normalize(view)) for view in batch.views)
    found = votes(first, second, torch.arange(24), classes=24, k=1).argmax(dim=1)
    assert (found == torch.arange(24)).float().mean() > 0.9


def test_features_and_probe_know_classes_that_they_were_not_taught(
    dataset: MakeDataset, tmp_path: Path
) -> None:
    data = dataset([*pictures(64, split="train"), *pictures(24, split="val")])
    config = with_(epochs=12, batch_size=32, lr=3e-3, jitter=0.1, grey_share=0.0, evaluate_epochs=6)
    run = train(data, tmp_path / "run", config, quiet=True)
    assert run.info.metrics["knn"] > 0.9
    assert run.info.metrics["probe"] > 0.9
    assert sum("measured" in line for line in lines(run)) == 2
    names = {name.split(".")[0] for name in run.weights()}
    assert names == {"backbone", "projector", "probe"}


def test_labels_do_not_reach_the_backbone(dataset: MakeDataset, tmp_path: Path) -> None:
    samples = pictures(32)
    other = [dataclasses.replace(s, label=(i // 3) % 4) for i, s in enumerate(samples)]
    runs = [
        train(dataset(samples, "right"), tmp_path / "on right", SMALL, quiet=True),
        train(dataset(other, "wrong"), tmp_path / "on wrong", SMALL, quiet=True),
        train(dataset(unlabelled(32), "none"), tmp_path / "on none", SMALL, quiet=True),
    ]
    weights = [run.weights() for run in runs]
    assert "probe.weight" in weights[0]
    assert not torch.equal(weights[0]["probe.weight"], weights[1]["probe.weight"])
    assert "probe.weight" not in weights[2]
    shared = [name for name in weights[2] if name.startswith(("backbone.", "projector."))]
    assert len(shared) > 10
    for name in shared:
        assert torch.equal(weights[0][name], weights[1][name])
        assert torch.equal(weights[0][name], weights[2][name])


def test_a_run_is_the_same_for_any_number_of_workers_and_after_a_stop(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(pictures(35))
    whole = train(data, tmp_path / "whole", SMALL, quiet=True)
    assert whole.info.steps == 12
    workers = train(data, tmp_path / "workers", with_(workers=2, cache="none"), quiet=True)
    assert lines(workers) == lines(whole)
    assert workers.digest == whole.digest
    calls = iter(range(1, 1000))
    normalize = simclr.normalize

    def stopped(images: Tensor) -> Tensor:
        if next(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return normalize(images)

    monkeypatch.setattr(simclr, "normalize", stopped)
    with pytest.raises(SystemExit):
        train(data, tmp_path / "parts", SMALL, quiet=True)
    parts = train(data, tmp_path / "parts", SMALL, quiet=True)
    assert lines(parts) == lines(whole)
    assert parts.digest == whole.digest


def one_of(_: int, __: int, folder: Path) -> None:
    """What a process of several does."""
    train(open_dataset(folder / "set"), folder / "parts", SMALL, quiet=True)


def test_two_processes_learn_what_one_does(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset([*pictures(32, split="train"), *pictures(12, split="val")])
    together(2, one_of, tmp_path)
    whole, parts = train(data, tmp_path / "whole", SMALL, quiet=True), open_run(tmp_path / "parts")
    assert parts.info.ranks == 2
    assert parts.info.samples_fingerprint == whole.info.samples_fingerprint
    curves = [[line["loss"] for line in lines(run) if "loss" in line] for run in (whole, parts)]
    assert len(curves[0]) == 6
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
    for name, value in whole.weights().items():
        torch.testing.assert_close(parts.weights()[name], value, rtol=1e-2, atol=1e-3)


def test_pieces_of_a_batch_give_the_contrast_of_the_whole(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(unlabelled(16))
    config = with_(batch_size=16, epochs=1, projector_layers=1, model="vit_tiny_patch16_224", image_size=16)
    runs = [
        train(data, tmp_path / f"{n}", dataclasses.replace(config, accumulate=n), quiet=True) for n in (1, 4)
    ]
    assert runs[0].info.metrics["loss"] == pytest.approx(runs[1].info.metrics["loss"], rel=1e-4)
    assert runs[0].info.metrics["loss"] > 2  # of 16 images, not of pieces of 4


def test_each_view_is_changed_by_its_own_chance_and_normalised(dataset: MakeDataset) -> None:
    data = dataset(pictures(8))
    (batch,) = Loader(data, batch_size=8, image_size=16, seed=0, augment=True, views=2, workers=0).epoch(2)
    made = prepare_batch(
        batch, dataclasses.replace(SMALL, jitter=0.0, grey_share=0.0, blur_share=0.0).color_augment()
    )
    (images_BV3TT,) = made.inputs
    assert images_BV3TT.shape == (8, 2, 3, 16, 16)
    assert images_BV3TT.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    for v, view in enumerate(batch.views):
        expected = (view / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        torch.testing.assert_close(images_BV3TT[:, v], expected, rtol=1e-5, atol=1e-5)
    color_augment = dataclasses.replace(SMALL, jitter_share=0.5).color_augment()
    changed = prepare_batch(batch, color_augment)
    drawn = color_augment.draw(chance.of_view(batch.chances, 1), 2)
    touched = (drawn.factors != (1, 1, 1, 0)).any(axis=1) | drawn.grey  # images of 16 px are not blurred
    differs = (changed.inputs[0][:, 1] - images_BV3TT[:, 1]).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert 0 < touched.sum() < 8
    np.testing.assert_array_equal(differs.numpy(), touched)
    assert made.targets[0].tolist() == batch.labels.tolist()


def test_presets_are_what_their_papers_say() -> None:
    configs = {name: parse(SimclrConfig, {"preset": name}, "here", PRESETS) for name in PRESETS}
    assert configs["simclr"].lr == pytest.approx(0.3 * configs["simclr"].batch_size / 256)
    assert configs["entezari2023"].color_augment().jitter == pytest.approx((0.4, 0.4, 0.4, 0.1))
    assert configs["simclr"].color_augment().jitter == pytest.approx((0.8, 0.8, 0.8, 0.2))
    widths = {
        name: [part.out_features for part in simclr.projector(8, c.hidden_dim, c.projection_dim, c.projector_layers)
               if hasattr(part, "out_features")]
        for name, c in configs.items()
    }  # fmt: skip
    assert widths == {"simclr": [2048, 128], "entezari2023": [4096, 4096, 256], "cifar": [2048, 256]}
    assert config_of("simclr", {"preset": "cifar", "epochs": 5}, "here").epochs == 5


def test_the_backbone_starts_as_that_of_a_classifier_does() -> None:
    model = simclr.build("convnet", num_classes=0, image_size=16, seed=3)
    other = simclr.build("convnet", num_classes=7, image_size=16, seed=3)
    net = SimCLRModel(model, SMALL, 4)
    for name, value in other.backbone.state_dict().items():
        assert torch.equal(net.backbone.state_dict()[name], value)


@pytest.mark.parametrize(
    ("samples", "changes", "message"),
    [
        (1, {}, "1 samples to learn from, fewer than a batch of 8"),
        (5, {}, "5 samples to learn from, fewer than a batch of 8"),
        (16, {"views": 1}, "views is 1"),
        (16, {"temperature": 0.0}, "temperature is 0"),
        (16, {"jitter": 3.0}, "jitter is 3"),
        (16, {"blur_share": 1.5}, "blur_share is 1.5"),
        (16, {"projector_layers": 0}, "projector_layers is 0"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_the_first_step(
    dataset: MakeDataset, tmp_path: Path, samples: int, changes: dict, message: str
) -> None:
    with pytest.raises((DataError, RecipeError), match=message) as caught:
        train(dataset(pictures(samples)), tmp_path / "run", with_(**changes), quiet=True)
    assert caught.value.hint
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_labels_out_of_range_and_other_classes_are_refused(dataset: MakeDataset, tmp_path: Path) -> None:
    wrong = [dataclasses.replace(s, label=9) for s in pictures(16)]
    with pytest.raises(DataError, match=r"label.* 4 classes"):
        train(dataset(wrong, "wrong"), tmp_path / "run", SMALL, quiet=True)
    val = dataset(pictures(8, 3), "val", classes=3)
    with pytest.raises(RecipeError, match="3 classes, not the 4"):
        train(dataset(pictures(16)), tmp_path / "run", SMALL, val=val, quiet=True)


def test_rows_without_labels_are_learned_from_and_not_measured(dataset: MakeDataset, tmp_path: Path) -> None:
    some = [dataclasses.replace(s, label=None) if i % 2 else s for i, s in enumerate(pictures(32, 2))]
    some[::4] = [dataclasses.replace(s, label=1) for s in some[::4]]
    data = dataset([*some, *pictures(8, 2, split="val")], classes=2)
    run = train(data, tmp_path / "run", with_(knn_rows=10), quiet=True)
    assert run.info.samples_seen == 3 * 32
    assert 0 <= run.info.metrics["knn"] <= 1
    assert run.info.facts == {"knn_rows": 10}
