"""AlexNet of 2012: its weights counted, its shapes at both sizes, how it begins."""

from __future__ import annotations

import pytest
import torch

from train.models.alexnet import AlexNet
from train.models.registry import build


def weights(name: str) -> int:
    model = build(name, num_classes=1000, image_size=224)
    return sum(p.numel() for p in model.parameters())


def test_it_has_the_61_million_weights_of_caffes() -> None:
    assert weights("alexnet") == 60_965_224  # bvlc_alexnet's; 62,378,344 without the groups


def test_torchvisions_is_still_there() -> None:
    assert weights("alexnet-torchvision") == 61_100_840  # as torchvision documents it


@pytest.mark.parametrize("size", [224, 227])
def test_its_places_are_those_of_the_paper(size: int) -> None:
    network = AlexNet().eval()
    shapes = []
    for layer in network.conv:
        layer.register_forward_hook(
            lambda layer, _, out: shapes.append((type(layer).__name__, *out.shape[1:]))
        )
    with torch.no_grad():
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 4096)
    pooled = [shape[1:] for shape in shapes if shape[0] == "MaxPool2d"]
    assert pooled == [(96, 27, 27), (256, 13, 13), (256, 6, 6)]
    assert [shape[1] for shape in shapes if shape[0] == "Conv2d"] == [96, 256, 384, 384, 256]


def test_it_begins_as_published() -> None:
    state = build("alexnet", num_classes=10, image_size=227).backbone.state_dict()
    weights = {name: value for name, value in state.items() if name.endswith("weight")}
    assert all(abs(value.std().item() - 0.01) < 3e-4 for value in weights.values())
    ones = [value.unique().tolist() for name, value in state.items() if name.endswith("bias")]
    assert ones == [[0.0], [1.0], [0.0], [1.0], [1.0], [1.0], [1.0]]  # five convolutions, fc6, fc7


def test_half_of_the_features_are_dropped_in_training_alone() -> None:
    network = AlexNet()
    images = torch.rand(2, 3, 67, 67)
    with torch.no_grad():
        assert 0.4 < (network.train()(images) == 0).float().mean() < 0.8
        assert torch.equal(network.eval()(images), network(images))
