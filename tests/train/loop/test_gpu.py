"""What only a GPU can show: bf16, channels_last, the cache there, exact resumption, NCCL, memory that is too small.

Where there is none they are left out: `pytest -m gpu` runs them where there is one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from handmade import Sample, picture, pictures
from torch import Tensor, nn

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.augment.chance import of_keys
from train.augment.mixup import Mix
from train.augment.randaugment import RandAugment
from train.data.loader import Loader
from train.loop.distributed import Distributed
from train.loop.metrics import flops
from train.loop.metrics.throughput import wait_meter
from train.loop.optim.train_step import TrainStep
from train.methods import registry
from train.methods.supervised import model_accuracy
from train.models.registry import build
from train.runs import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("default"),  # those of drivers and kernels are not ours
]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product, for repeatable ones

DEVICE = "cuda"
MakeDataset = Callable[..., Dataset]
SMALL: dict[str, dict[str, Any]] = {
    "supervised": {"model": "convnet", "image_size": 16},
    "clip": {"model": "convnet", "image_size": 16, "text_width": 32, "text_layers": 1, "context_length": 16},
    "simclr": {"model": "convnet", "image_size": 16, "hidden_dim": 32, "projection_dim": 16},
}
METHODS = list(SMALL)


def config_of(method: str, **changes: Any) -> Any:
    told = {"epochs": 4, "batch_size": 8, "workers": 1, "device": DEVICE, **SMALL[method], **changes}
    return registry.config_of(method, told, "test")


def train(method: str, data: Dataset, out: Path, **changes: Any) -> Run:
    return registry.method(method).train(data, out, config_of(method, **changes), quiet=True)


def captioned(count: int) -> list[Sample]:
    colours = ("red", "green", "blue", "yellow")
    return [
        dataclasses.replace(s, caption=f"{colours[i % 4]} number {i}") for i, s in enumerate(pictures(count))
    ]


def losses(run: Run) -> list[float]:
    logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in logged if "loss" in line]


@pytest.fixture
def nccl(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    meet = f"file://{tmp_path / 'meet'}"
    torch.distributed.init_process_group("nccl", init_method=meet, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_it_learns_64_images_by_heart(dataset: MakeDataset, tmp_path: Path, precision: str) -> None:
    data = dataset([Sample(f"all/{i}", i % 4, picture(i, 0, (16, 16))) for i in range(64)])
    run = train(
        "supervised", data, tmp_path / "run", epochs=40, batch_size=16, min_area=1.0, label_smoothing=0.0,
        lr=3e-3, precision=precision,
    )  # fmt: skip
    plain = Loader(data, batch_size=64, image_size=16, seed=0, augment=False, workers=0, device=DEVICE)
    assert model_accuracy(run.model(DEVICE), plain)["top1"] >= 62 / 64


@pytest.mark.parametrize("method", METHODS)
def test_convolutions_run_in_bf16_and_channels_last(dataset: MakeDataset, method: str) -> None:
    module, config = registry.method(method), config_of(method)
    more = {"quiet": True} if method == "clip" else {}
    prepared, loader = module._prepare(
        dataset(captioned(16)), config, None, torch.device(DEVICE), Distributed(), **more
    )
    train_step = TrainStep(
        prepared, config, Distributed(), torch.device(DEVICE), total_steps=10, steps_per_epoch=2
    )
    seen: list[Tensor] = []
    for one in prepared.module.backbone.modules():
        if isinstance(one, nn.Conv2d):
            one.register_forward_hook(lambda _, __, output: seen.append(output))
    train_step.step(train_step.prepare_batch(next(iter(loader.epoch(0)))), 0)
    assert len(seen) == 4
    assert all(output.dtype == torch.bfloat16 for output in seen)
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in seen)
    assert all(parameter.dtype == torch.float32 for parameter in prepared.module.parameters())


def test_what_is_kept_on_the_gpu_is_cut_there_as_on_a_cpu(dataset: MakeDataset) -> None:
    data = dataset(pictures(32))
    told = {"batch_size": 8, "image_size": 24, "seed": 0, "augment": True, "workers": 0}
    here = list(Loader(data, **told, cache="none").epoch(1))
    there = list(Loader(data, **told, cache="device", device=DEVICE).epoch(1))
    for a, b in zip(here, there, strict=True):
        assert b.images.device.type == DEVICE
        assert np.array_equal(a.rows, b.rows)
        assert (a.images.int() - b.images.cpu().int()).abs().max() <= 1  # sums in another order


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [3, 9])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    dataset: MakeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, step: int
) -> None:
    data, told = dataset(captioned(40)), {"deterministic": True, "ema": 0.9, "log_steps": 1}
    whole = train(method, data, tmp_path / "whole", **told)
    again = train(method, data, tmp_path / "again", **told)
    assert again.digest == whole.digest  # else the kernels do not repeat themselves, and no resumption can
    learn, taken = TrainStep.step, iter(range(1, 1000))

    def stopped(self: TrainStep, *args: Any) -> Tensor:
        if next(taken) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, *args)

    monkeypatch.setattr(TrainStep, "step", stopped)
    with pytest.raises(SystemExit):
        train(method, data, tmp_path / "parts", **told)
    parts = train(method, data, tmp_path / "parts", **told)
    assert losses(parts) == losses(whole)
    assert parts.digest == whole.digest


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("supervised", {"model": "resnet18", "image_size": 32}),
        ("clip", {"model": "RN50", "image_size": 64, "context_length": 32}),
    ],
)
def test_a_deterministic_run_has_equal_weights_twice(
    dataset: MakeDataset, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    data, told = dataset(captioned(64)), {"deterministic": True, "epochs": 1, "batch_size": 32, **options}
    one, two = (train(method, data, tmp_path / name, **told) for name in "ab")
    assert one.info.nondeterministic == []
    assert one.digest == two.digest


def test_a_wait_for_data_is_what_the_gpu_stood_idle() -> None:
    """The host sleeps for half a second: while the GPU has nothing to do, then while it has work."""
    waiting = wait_meter(torch.device(DEVICE))
    work = torch.randn(8192, 8192, device=DEVICE)
    torch.cuda.synchronize()
    with waiting:
        time.sleep(0.5)
    torch.cuda.synchronize()
    assert waiting.read() > 0.4
    work @ work  # the first also makes cuBLAS ready
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(10):
        work @ work
    torch.cuda.synchronize()
    for _ in range(1 + int(10 / (time.perf_counter() - began))):  # a second of work
        work @ work
    with waiting:
        time.sleep(0.5)
    torch.cuda.synchronize()
    assert waiting.read() < 0.1


def test_torchrun_of_one_process_is_a_plain_run(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(40))
    told = [
        "--model",
        "convnet",
        "--image-size",
        "16",
        "--epochs",
        "2",
        "--batch-size",
        "8",
        "--workers",
        "1",
    ]
    told += ["--device", DEVICE, "--deterministic", "--quiet"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    command += [
        "-m",
        "train.cli",
        "train",
        "supervised",
        str(data.path),
        "--out",
        str(tmp_path / "run"),
        *told,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    plain = train("supervised", data, tmp_path / "plain", epochs=2, deterministic=True)
    log = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(log[0])["loss"] == pytest.approx(losses(plain)[0], rel=1e-4)


def test_gathered_rows_carry_their_gradient_over_nccl(nccl: None) -> None:
    ranks = Distributed(0, 2)  # one alone would speak with nobody; the group has one all the same
    rows = torch.randn(4, 3, device=DEVICE, requires_grad=True)
    gathered = ranks.all_gather_with_gradients(rows)
    assert torch.equal(gathered, rows)
    (gathered * torch.arange(12.0, device=DEVICE).view(4, 3)).sum().backward()
    assert torch.equal(rows.grad, torch.arange(12.0, device=DEVICE).view(4, 3))
    assert ranks.sum(torch.full((2,), 3.0, device=DEVICE)).tolist() == [3.0, 3.0]


def test_gradients_are_averaged_over_nccl_as_without(nccl: None, dataset: MakeDataset) -> None:
    module, config = registry.method("supervised"), config_of("supervised", precision="fp32")
    data, found = dataset(pictures(16)), []
    for ranks in (Distributed(), Distributed(0, 2)):
        method, _ = module._prepare(data, config, None, torch.device(DEVICE), Distributed())
        _, loader = module._prepare(data, config, None, torch.device(DEVICE), Distributed())
        train_step = TrainStep(method, config, ranks, torch.device(DEVICE), total_steps=10, steps_per_epoch=2)
        assert isinstance(train_step.wrapped, nn.parallel.DistributedDataParallel) == (ranks.world_size > 1)
        found.append(
            [train_step.step(train_step.prepare_batch(batch), 0).item() for batch in loader.epoch(0)]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_batch_that_does_not_fit_is_told_which_would(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(512))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 3e9 / total))
    try:
        with pytest.raises(RecipeError, match="does not fit") as caught:
            train(
                "supervised", data, tmp_path / "run", model="resnet18", image_size=224, batch_size=512, epochs=1,
                cache="none", workers=4,
            )  # fmt: skip
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert "accumulate" in str(caught.value.hint)


def test_counting_costs_a_gpu_nothing() -> None:
    model = build("resnet18", num_classes=10, image_size=64).to(DEVICE)
    images = torch.randn(4, 3, 64, 64, device=DEVICE)
    before, chance = torch.cuda.memory_allocated(), torch.cuda.get_rng_state()
    torch.cuda.reset_peak_memory_stats()
    counted = flops.training_flops(model, (images,))
    assert torch.cuda.max_memory_allocated() == before
    assert torch.equal(torch.cuda.get_rng_state(), chance)
    assert counted == flops.training_flops(model.cpu(), (images.cpu(),))


def test_this_gpu_has_a_known_peak() -> None:
    if flops.peak_flops(torch.device(DEVICE)) is None:
        pytest.skip(f"{torch.cuda.get_device_name()} is not in the table of `train.loop.metrics.flops`")
    side = 8192
    a, b = (torch.randn(side, side, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(10):
        a @ b
    end.record()
    torch.cuda.synchronize()
    share = flops.mfu(2 * side**3, 10 / (start.elapsed_time(end) / 1e3), torch.device(DEVICE))
    assert share is not None
    assert 0.4 < share < 1.05  # a matrix product comes near the peak, and not beyond


def test_images_are_mixed_and_changed_as_on_a_cpu() -> None:
    some = of_keys([str(i) for i in range(32)], seed=0)
    images = torch.randint(
        0, 256, (32, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(32) % 4
    here, there = (RandAugment(2, 9)(images.to(device), some, 0).cpu().int() for device in ("cpu", DEVICE))
    assert (
        (here - there).abs() > 1
    ).float().mean() < 0.01  # the nearest pixel may be another at half a pixel
    mix = Mix(mixup=0.8, cutmix=1.0, smoothing=0.1)
    pairs = [
        mix(images.to(device).float(), labels.to(device), some, 0, num_classes=4)
        for device in ("cpu", DEVICE)
    ]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b.cpu(), atol=1e-3, rtol=1e-5)
