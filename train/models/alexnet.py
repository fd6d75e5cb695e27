"""AlexNet as it was in 2012, in Caffe's layout: two groups of channels, responses normalised, fc6 and fc7."""

# B images, H height, W width

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 4096  # of fc6 and fc7


class AlexNet(nn.Module):
    """The backbone: five convolutions, fc6 and fc7; images of 227 px, or of 224.

    The second, fourth and fifth convolution see half of the channels each, as they did on two GPUs. Other sizes are
    averaged to the 6 x 6 places that fc6 looks at. Weights begin at a Gaussian of 0.01 and biases at 0, or at 1 in
    the second, fourth and fifth convolution and in fc6 and fc7. The normalisation is Caffe's: 1 + 1e-4 times the
    mean of five squares, where the paper has 2 + 1e-4 times their sum.

    Source: Krizhevsky, Sutskever and Hinton, NIPS 2012; bvlc_alexnet of Caffe.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *_conv(3, 96, 11, stride=4),
            _normalise(),
            _pool(),
            *_conv(96, 256, 5, padding=2, groups=2, bias=1.0),
            _normalise(),
            _pool(),
            *_conv(256, 384, 3, padding=1),
            *_conv(384, 384, 3, padding=1, groups=2, bias=1.0),
            *_conv(384, 256, 3, padding=1, groups=2, bias=1.0),
            _pool(),
            nn.AdaptiveAvgPool2d(6),  # changes nothing at 224 and 227 px
        )
        self.fc6 = _begin(nn.Linear(256 * 6 * 6, WIDTH), bias=1.0)
        self.fc7 = _begin(nn.Linear(WIDTH, WIDTH), bias=1.0)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Return features_BD of fc7, D = 4096, half of them dropped in training."""
        places_BD = self.conv(images_B3HW).flatten(1)
        hidden_BD = self.dropout(torch.relu(self.fc6(places_BD)))
        return self.dropout(torch.relu(self.fc7(hidden_BD)))


def _conv(
    inputs: int,
    outputs: int,
    size: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: float = 0.0,
) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, groups=groups)
    return _begin(conv, bias=bias), nn.ReLU(inplace=True)


def _begin(layer: nn.Conv2d | nn.Linear, *, bias: float) -> nn.Conv2d | nn.Linear:
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.constant_(layer.bias, bias)
    return layer


def _normalise() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)  # Caffe rounds up: 27 places at 224 px too, not 26
