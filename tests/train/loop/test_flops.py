"""What a step costs: the published numbers, and that counting changes nothing."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path

import pytest
import torch
import torchvision
from campaigns import masses
from torch import Tensor, nn

from train.loop.method import Method, PreparedBatch
from train.loop.metrics import flops
from train.models.registry import ModelSpec, build

TRAFFIC = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "_traffic.py"))
training_bytes, bandwidth_share = TRAFFIC["training_bytes"], TRAFFIC["bandwidth_share"]
UNKNOWN = (
    "NVIDIA GeForce GTX 1080",
    "NVIDIA RTX A400",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA H200 MIG 1g.18gb",
)
PHOTO = (torch.zeros(1, 3, 224, 224),)


def images(size: int) -> tuple[Tensor]:
    return (torch.zeros(1, 3, size, size),)


@pytest.mark.parametrize(
    ("name", "stem", "size", "billions"),
    masses(
        [  # training.md 1.1: six times the multiplications of a forward pass
            ("resnet50", "imagenet", 224, 24.5),
            ("resnet50", "imagenet", 128, 8.0),
            ("resnet50", "small", 64, 31.2),
            ("resnet18", "imagenet", 224, 10.9),
            ("resnet18", "small", 32, 3.34),
            ("vit_base_patch16_224", "imagenet", 224, 105.5),
            ("vit_base_patch32_224", "imagenet", 224, 26.5),
        ],
        lambda case: case[0] in ("resnet18", "vit_base_patch32_224"),
    ),
)
def test_operations_are_the_published_ones(name: str, stem: str, size: int, billions: float) -> None:
    model = build(name, num_classes=1000, stem=stem, image_size=size)  # type: ignore[arg-type]
    found = flops.training_flops(model, images(size)) / 1e9
    unneeded = (2 * 3 * 64 * 49 * 112 * 112 / 1e9) * (size / 224) ** 2 if stem == "imagenet" else 0
    if name.startswith(
        "resnet"
    ):  # published are thrice the forward's; nobody asks for the gradient of the images
        billions -= unneeded
    assert found == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "billions"),
    masses([("RN50", 54.5), ("ViT-B-32", 44.3), ("ViT-B-16", 123.3)], lambda case: case[0] == "ViT-B-32"),
)
def test_clip_costs_what_open_clip_says(name: str, billions: float) -> None:
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model(name, pretrained=None, device="meta", load_weights=False)
    tokens = torch.zeros(1, 77, dtype=torch.int64)
    assert flops.training_flops(model, (*PHOTO, tokens)) / 1e9 == pytest.approx(billions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "size", "megabytes", "apart"),
    # The published count leaves out pooling, which is 6 % of ResNet-18.
    masses(
        [("resnet50", 224, 471, 0.03), ("resnet50", 160, 240, 0.03), ("resnet18", 224, 100, 0.08)],
        lambda case: case[1:3] != (224, 471),
    ),
)
def test_traffic_is_the_published_one(name: str, size: int, megabytes: float, apart: float) -> None:
    model = torchvision.models.get_model(name)
    assert training_bytes(model, images(size)) / 1e6 == pytest.approx(megabytes, rel=apart)


def test_weights_are_no_traffic_of_a_sample() -> None:
    narrow, wide = (nn.Sequential(nn.Linear(8, width), nn.Linear(width, 8)) for width in (8, 8000))
    one, other = (training_bytes(module, (torch.zeros(1, 8),)) for module in (narrow, wide))
    assert other < one * 1000  # each number of the inner layer, but not the 64,000 of each weight


class Odd(nn.Module):
    """Dropout, a norm, a buffer, a weight that does not learn, and one that is used twice."""

    def __init__(self, looks: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.norm = nn.BatchNorm1d(6)
        self.twice = self.first.weight
        self.looks = looks

    def forward(self, rows_BD: Tensor) -> tuple[Tensor, Tensor]:
        hidden = nn.functional.dropout(self.norm(self.frozen(self.first(rows_BD))), 0.5)
        if self.looks:
            hidden = hidden[rows_BD.sum(1) > -1e9]  # as many rows as values say
        return hidden @ self.twice, rows_BD.argmax(dim=1)


@pytest.mark.parametrize("looks", [False, True])
def test_counting_changes_nothing(looks: bool) -> None:
    module = Odd(looks)
    module.norm.eval() if looks else module.train()
    rows = torch.randn(4, 6)
    module(rows)[0].sum().backward()
    modes = {name: one.training for name, one in module.named_modules()}
    state = copy.deepcopy(module.state_dict())
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    chance = torch.get_rng_state()

    def loss(outputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> Tensor:
        raise AssertionError("a loss may speak with other processes, and what it notes is read")

    method = Method("odd", ModelSpec("odd", "imagenet", 0, 6), module, lambda _: PreparedBatch(()), loss)
    counted = flops.per_sample(method, PreparedBatch((rows,)))
    training_bytes(module, (rows,))

    # 36 multiplications a layer: forward three; backward, of inputs two and of weights two.
    assert counted == 2 * 36 * 7
    assert modes == {name: one.training for name, one in module.named_modules()}
    assert all(torch.equal(state[name], now) for name, now in module.state_dict().items())
    now = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    assert now.keys() == gradients.keys()
    assert all(torch.equal(gradients[name], gradient) for name, gradient in now.items())
    assert torch.equal(chance, torch.get_rng_state())


def test_a_number_of_rows_does_not_matter() -> None:
    module = torchvision.models.resnet18()
    assert flops.training_flops(module, (torch.zeros(7, 3, 64, 64),)) == flops.training_flops(
        module, images(64)
    )


@pytest.mark.parametrize(
    ("name", "teraflops", "gigabytes"),
    [
        ("NVIDIA H200", 989, 4800),
        ("NVIDIA H100 80GB HBM3", 989, 3350),
        ("NVIDIA H100 PCIe", 756, 2000),
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA L4", 121, 300),
        ("NVIDIA L40S", 362, 864),
        ("NVIDIA A40", 149.7, 696),
        ("NVIDIA A10", 125, 600),
        ("NVIDIA GeForce RTX 3090", 71, 936),
        ("NVIDIA GeForce RTX 4090", 165.2, 1008),
        ("Tesla V100-SXM2-16GB", 125, 900),
        ("Tesla T4", 65, 320),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, teraflops: float, gigabytes: float) -> None:
    found = flops.peak(name)
    assert found == pytest.approx((teraflops * 1e12, gigabytes * 1e9))


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_gpu_has_no_peak(name: str) -> None:
    assert flops.peak(name) is None


def test_a_cpu_has_no_share() -> None:
    cpu = torch.device("cpu")
    assert flops.peak_flops(cpu) is flops.mfu(1e9, 100, cpu) is bandwidth_share(1e6, 100, cpu) is None


def test_shares_are_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    gpu = torch.device("cuda")
    assert flops.mfu(24.5e9, 7960, gpu) == pytest.approx(0.197, abs=0.001)  # NVIDIA's record: training.md 1.3
    assert bandwidth_share(471e6, 7960, gpu) == pytest.approx(0.78, abs=0.01)
