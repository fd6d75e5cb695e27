"""The supervised trainer and the loop under it: it learns, goes on exactly, and says what is wrong before it begins."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from campaigns import masses
from handmade import Sample, picture, pictures

from curate.datasets.dataset import Dataset
from curate.errors import CurateError, DataError, MissingError, RecipeError
from train.data.loader import Loader
from train.loop import start
from train.methods import supervised
from train.methods.registry import config_of
from train.methods.supervised import SupervisedConfig, model_accuracy, train
from train.models.registry import build
from train.runs import Run, open_run

MakeDataset = Callable[..., Dataset]
SMALL = SupervisedConfig(
    model="convnet", image_size=8, epochs=4, batch_size=8, workers=1, device="cpu", log_steps=4
)  # so that runs stop between two lines, too
NORMALIZE = supervised.normalize


def with_(**changes: Any) -> SupervisedConfig:
    return dataclasses.replace(SMALL, **changes)


def lines(run: Path) -> list[dict[str, Any]]:
    """The log, less what depends on the clock."""
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clock = ("samples_per_s", "data_wait", "memory_gb", "mfu")
    return [{k: v for k, v in line.items() if k not in clock} for line in logged]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Let something happen in the n-th step from now, once."""

    def plan(step: int, happen: Callable[[], None]) -> None:
        calls = iter(range(1, 1000))

        def normalize(images: torch.Tensor) -> torch.Tensor:
            if next(calls) == step:
                happen()
            return NORMALIZE(images)

        monkeypatch.setattr(supervised, "normalize", normalize)

    return plan


def test_it_learns_24_images_by_heart(dataset: MakeDataset, tmp_path: Path) -> None:
    noise = [
        Sample(f"all/{i}", i % 4, picture(i, 0, (16, 16))) for i in range(24)
    ]  # one colour: nothing to generalise
    data = dataset(noise)
    config = with_(image_size=16, epochs=30, batch_size=12, min_area=1.0, label_smoothing=0.0, lr=3e-3)
    run = train(data, tmp_path / "run", config)
    plain = Loader(data, batch_size=24, image_size=16, seed=0, augment=False, workers=0)
    assert model_accuracy(run.model(), plain)["top1"] >= 23 / 24
    assert run.info.metrics["loss"] < 0.2
    scratch = train(data, tmp_path / "short", with_(image_size=16, epochs=1))
    assert model_accuracy(scratch.model(), plain)["top1"] < 0.6


def test_it_is_measured_on_the_held_out_rows_alone(dataset: MakeDataset, tmp_path: Path) -> None:
    wrong = [dataclasses.replace(s, label=(s.label + 1) % 4) for s in pictures(12, split="val")]  # type: ignore[operator]
    test = pictures(8, split="test")
    data = dataset([*pictures(40, split="train"), *wrong, *test])
    run = train(data, tmp_path / "run", with_(epochs=8, lr=3e-3))
    assert (
        run.info.metrics["top1"] == 0.0
    )  # it learned the colours, and the labels of val are all moved on by one
    assert "top5" not in run.info.metrics  # of four classes
    assert run.info.samples_seen == 8 * 40
    right = dataset(pictures(12, split="val"), "right")
    assert train(data, tmp_path / "other", with_(epochs=8, lr=3e-3), val=right).info.metrics["top1"] == 1.0


def test_without_held_out_rows_there_is_a_loss_and_no_accuracy(dataset: MakeDataset, tmp_path: Path) -> None:
    run = train(dataset(pictures(16)), tmp_path / "run", with_(epochs=1))
    assert list(run.info.metrics) == ["loss"]


@pytest.mark.parametrize("options", [{"mixup": 0.8, "cutmix": 1.0}, {"randaugment": 2, "magnitude": 15}])
def test_strong_augmentation_learns_too_and_is_the_same_for_any_workers(
    dataset: MakeDataset, tmp_path: Path, options: dict[str, Any]
) -> None:
    data = dataset([*pictures(32, split="train"), *pictures(16, split="val")])
    config = with_(epochs=8, lr=3e-3, **options)
    run = train(data, tmp_path / "run", config)
    assert run.info.metrics["top1"] >= 0.75
    assert train(data, tmp_path / "again", dataclasses.replace(config, workers=2)).digest == run.digest
    assert train(data, tmp_path / "plain", with_(epochs=8, lr=3e-3)).digest != run.digest


def test_a_budget_in_samples_is_the_same_for_sets_of_any_size(dataset: MakeDataset, tmp_path: Path) -> None:
    for count in (16, 44):
        run = train(
            dataset(pictures(count), f"set{count}"), tmp_path / f"run{count}", with_(epochs=None, samples=72)
        )
        assert (run.info.samples_seen, run.info.steps) == (72, 9)


# Of 20 steps, five an epoch: within an epoch, at the end of one, at the very end.
@pytest.mark.parametrize(
    ("step", "optimizer"),
    masses(
        itertools.product([3, 10, 20], ["adamw", "sgd"]),
        lambda case: case != (10, "sgd") and case != (20, "sgd"),
    ),
)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    dataset: MakeDataset, tmp_path: Path, stop_at: Callable, step: int, optimizer: str
) -> None:
    data = dataset(pictures(43))
    config = with_(optimizer=optimizer)
    whole = train(data, tmp_path / "whole", config)
    stop_at(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as caught:
        train(data, tmp_path / "parts", config)
    assert caught.value.code == 0
    with pytest.raises(RecipeError, match="unfinished"):
        open_run(tmp_path / "parts")
    parts = train(data, tmp_path / "parts", dataclasses.replace(config, workers=2))
    assert len(lines(whole.path)) == 20 / 4 + 1
    assert lines(parts.path) == lines(whole.path)
    assert parts.digest == whole.digest
    assert (parts.info.samples_seen, parts.info.metrics) == (whole.info.samples_seen, whole.info.metrics)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    dataset: MakeDataset, tmp_path: Path, stop_at: Callable
) -> None:
    data = dataset(pictures(43))
    whole = train(data, tmp_path / "whole", SMALL)
    config = with_(checkpoint_s=0.0)

    def die() -> None:
        raise MemoryError

    stop_at(7, die)
    with pytest.raises(MemoryError):
        train(data, tmp_path / "parts", config)
    kept = sorted(p.name for p in (tmp_path / "parts" / "checkpoints").iterdir())
    assert kept == [f"step-00000000{n}.{ext}" for n in (5, 6) for ext in ("pt", "safetensors")]
    stop_at(6, die)  # logs the steps to 8, and saves none
    with pytest.raises(MemoryError):
        train(data, tmp_path / "parts", SMALL)
    assert lines(tmp_path / "parts")[-1]["step"] == 8
    parts = train(data, tmp_path / "parts", SMALL)
    assert parts.digest == whole.digest
    assert lines(parts.path) == lines(whole.path)
    assert not (tmp_path / "parts" / "checkpoints").exists()


def test_dropout_too_goes_on_exactly(dataset: MakeDataset, tmp_path: Path, stop_at: Callable) -> None:
    data = dataset(pictures(16))
    config = with_(
        model="mobilenetv3_small_050", image_size=32, epochs=3
    )  # has dropout of 0.2 only where asked

    def build(*args: Any, **kwargs: Any) -> Any:
        model = BUILD(*args, **kwargs)
        model.backbone = torch.nn.Sequential(model.backbone, torch.nn.Dropout(0.5))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "build", build)
        whole = train(data, tmp_path / "whole", config)
        stop_at(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(data, tmp_path / "parts", config)
        torch.manual_seed(99)
        assert train(data, tmp_path / "parts", config).digest == whole.digest


BUILD = supervised.build


def test_a_finished_run_is_returned_and_another_refused(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, other = dataset(pictures(16)), dataset(pictures(24), "other")
    run = train(data, tmp_path / "run", with_(epochs=1))
    monkeypatch.setattr(start, "fit", None)
    again = train(data, tmp_path / "run", with_(epochs=1, workers=3, cache="none"))
    assert isinstance(again, Run)
    assert again.info == run.info
    with pytest.raises(RecipeError, match=r"lr: 0\.001, now 0\.1") as caught:
        train(data, tmp_path / "run", with_(epochs=1, lr=0.1))
    assert caught.value.hint
    with pytest.raises(RecipeError, match=f"dataset: {data.digest}, now {other.digest}"):
        train(other, tmp_path / "run", with_(epochs=1))


def test_a_run_that_never_got_to_a_checkpoint_may_be_replaced(
    dataset: MakeDataset, tmp_path: Path, stop_at: Callable
) -> None:
    data = dataset(pictures(16))

    def die() -> None:
        raise MemoryError

    stop_at(2, die)
    with pytest.raises(MemoryError):
        train(data, tmp_path / "run", SMALL)
    assert train(data, tmp_path / "run", with_(lr=0.01)).info.config["lr"] == 0.01


def test_a_folder_of_something_else_is_left_alone(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(16))
    before = sorted(data.path.iterdir())
    with pytest.raises(RecipeError, match="is not a run"):
        train(data, data.path, SMALL)
    assert sorted(data.path.iterdir()) == before


@pytest.mark.parametrize("log_steps", [1, 1000])  # found by the log, or when a checkpoint is due
def test_a_loss_that_is_no_number_stops_the_run(dataset: MakeDataset, tmp_path: Path, log_steps: int) -> None:
    config = with_(
        optimizer="sgd", lr=1e30, warmup_fraction=0.0, epochs=20, checkpoint_s=0.0, log_steps=log_steps
    )
    data = dataset(pictures(16))
    with pytest.raises(RecipeError, match="is no number at step 2") as caught:
        train(data, tmp_path / "run", config)
    assert "smaller lr" in str(caught.value.hint)
    told = json.loads((tmp_path / "run" / "not_finite.json").read_text())
    second = list(Loader(data, batch_size=8, image_size=8, seed=0, augment=True, workers=0).epoch(0))[1]
    assert told == {"step": 2, "keys": second.keys}
    for saved in (tmp_path / "run" / "checkpoints").iterdir():
        assert int(saved.stem.split("-")[1]) < 3


def test_broken_images_are_listed_after_a_stop_too(
    dataset: MakeDataset, tmp_path: Path, stop_at: Callable
) -> None:
    data = dataset([*pictures(120), Sample("all/broken", 1, b"no picture")])
    stop_at(29, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        train(data, tmp_path / "run", with_(epochs=2, cache="none"))
    run = train(data, tmp_path / "run", with_(epochs=2, cache="none"))
    assert list(json.loads((run.path / "broken.json").read_text())) == ["all/broken"]


def test_broken_images_are_listed_beside_the_run(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset([*pictures(120), Sample("all/broken", 1, b"no picture")])
    run = train(data, tmp_path / "run", with_(epochs=1))
    assert list(json.loads((run.path / "broken.json").read_text())) == ["all/broken"]
    assert run.info.samples_seen in (119, 120)  # 15 batches of 8; the broken one is in them, or is the rest


@pytest.mark.parametrize(
    ("samples", "classes", "error", "words"),
    [
        (pictures(16, classes=1), 4, DataError, "1 class among 16 samples"),
        (pictures(6), 4, DataError, "6 samples to learn from, fewer than a batch of 8"),
        ([*pictures(16), Sample("all/none", None, b"")], 4, DataError, "no label"),
        (pictures(16), 3, DataError, "`label` beyond the 3 classes"),
        (pictures(16, split="test"), 4, DataError, "no rows of the split 'train'"),
    ],
)
def test_bad_data_is_refused_before_a_folder_is_made(
    dataset: MakeDataset,
    tmp_path: Path,
    samples: list[Sample],
    classes: int,
    error: type[CurateError],
    words: str,
) -> None:
    with pytest.raises(error, match=words) as caught:
        train(dataset(samples, classes=classes), tmp_path / "run", SMALL)
    assert caught.value.hint
    assert not (tmp_path / "run").exists()


def test_validation_needs_the_same_classes(dataset: MakeDataset, tmp_path: Path) -> None:
    val = dataset(pictures(8), "val", classes=5)
    with pytest.raises(RecipeError, match="5 classes, not the 4"):
        train(dataset(pictures(16)), tmp_path / "run", SMALL, val=val)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"samples": 100}, "both given"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"warmup_fraction": 5}, "warmup_fraction is 5"),
        ({"precision": "fp8"}, "precision is fp8"),
        ({"min_area": 0}, "min_area is 0"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"model": "convnit"}, "did you mean 'convnet'"),
        ({"optimizer": "adamv"}, "did you mean 'adam"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(
    dataset: MakeDataset, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        train(dataset(pictures(16)), tmp_path / "run", with_(**changes))
    assert words in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said_to_be_missing(dataset: MakeDataset, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no GPU"):
        train(dataset(pictures(16)), tmp_path / "run", with_(device="cuda"))


def test_a_config_is_read_from_a_file_with_its_place_in_every_error() -> None:
    config = config_of("supervised", {"model": "convnet", "lr": "1e-3", "epochs": 2}, "file.yaml, pretrain")
    assert config == SupervisedConfig(model="convnet", lr=1e-3, epochs=2)  # YAML reads 1e-3 as text
    for options, words in [
        ({"modell": "convnet"}, "file.yaml, pretrain: no option 'modell'"),
        ({"epochs": "many"}, "file.yaml, pretrain: epochs is 'many'"),
        ({"stem": "large"}, "file.yaml, pretrain: stem is 'large'"),
        ({"epochs": -1}, "file.yaml, pretrain: epochs is -1"),
    ]:
        with pytest.raises(RecipeError) as caught:
            config_of("supervised", options, "file.yaml, pretrain")
        assert str(caught.value).startswith(words)
        assert caught.value.hint


def test_classes_are_ranked_by_float32_where_bf16_knows_no_order(
    dataset: MakeDataset, tmp_path: Path
) -> None:
    data = dataset([dataclasses.replace(sample, label=3) for sample in pictures(8)])
    model = build("convnet", num_classes=4, image_size=16).eval()
    with torch.no_grad():
        model.head.weight.zero_()  # type: ignore[union-attr, operator]
        model.head.bias.copy_(torch.tensor([1, 1, 1, 1.001]))  # type: ignore[union-attr, operator]
    plain = Loader(data, batch_size=8, image_size=16, seed=0, augment=False, workers=0)
    assert model_accuracy(model, plain, precision="bf16") == {"top1": 1.0}
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.zeros(2, 3, 16, 16)).dtype == torch.float32
