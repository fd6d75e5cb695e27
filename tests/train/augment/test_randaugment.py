"""RandAugment: each operation is torchvision's, and all are drawn alike."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment, v2

from curate.errors import RecipeError
from train.augment import chance
from train.augment.randaugment import NAMES, OPERATIONS, RandAugment, apply, draw

MANY = chance.of_keys([str(i) for i in range(14_000)], seed=0)


def photos(count: int, height: int = 24, width: int = 30) -> Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (count, 3, 6, 6)).astype(np.float32)
    large = torch.nn.functional.interpolate(torch.from_numpy(noise), (height, width), mode="bilinear")
    darker = torch.linspace(0.4, 1.0, count).view(
        -1, 1, 1, 1
    )  # so that contrast and equalise differ by image
    return (large * darker).to(torch.uint8)


def theirs(name: str, image: Tensor, magnitude: int, sign: int, version: str = "v2") -> Tensor:
    """What torchvision makes of one image, by the function that its RandAugment calls."""
    height, width = image.shape[-2:]
    nearest = InterpolationMode.NEAREST
    if version == "v2":
        amounts, signed = v2.RandAugment._AUGMENTATION_SPACE[name]
        found = amounts(31, height, width)
        amount = 0.0 if found is None else float(found[magnitude]) * (sign if signed else 1)
        return v2.RandAugment()._apply_image_or_video_transform(image, name, amount, nearest, {Tensor: None})
    found, signed = autoaugment.RandAugment()._augmentation_space(31, (height, width))[name]
    amount = float(found[magnitude] if found.ndim else found) * (sign if signed else 1)
    return autoaugment._apply_op(image, name, amount, nearest, None)


def test_there_are_torchvisions_operations() -> None:
    assert set(v2.RandAugment._AUGMENTATION_SPACE) == set(NAMES)
    assert {name for name, (_, signed) in v2.RandAugment._AUGMENTATION_SPACE.items() if signed} == {
        name for name, operation in OPERATIONS.items() if operation.signed
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_torchvisions(name: str) -> None:
    """Equal to the second version of its transforms; the first rounds down where that rounds."""
    images = photos(5)
    for magnitude, sign in product((0, 1, 4, 9, 15, 29, 30), (1, -1)):
        ours = apply(name, images, magnitude, sign)
        second, first = (
            torch.stack([theirs(name, image, magnitude, sign, version) for image in images])
            for version in ("v2", "v1")
        )
        assert ours.dtype == torch.uint8
        assert torch.equal(ours, second), (magnitude, sign)
        assert (ours.int() - first.int()).abs().max() <= 1, (magnitude, sign)
    if name not in ("Identity",):
        assert not torch.equal(ours, images)


def test_operations_and_signs_are_drawn_alike() -> None:
    pairs = [draw(MANY, 3, number) for number in (0, 1)]
    for operation, negative in pairs:
        assert chisquare(np.bincount(operation, minlength=14)).pvalue > 1e-4
        signed = np.array([OPERATIONS[NAMES[i]].signed for i in operation])
        assert not negative[~signed].any()
        assert abs(negative[signed].mean() - 0.5) < 5 * 0.5 / np.sqrt(signed.sum())
    both = np.bincount(pairs[0][0] * 14 + pairs[1][0], minlength=196)
    assert chisquare(both).pvalue > 1e-4  # the second does not depend on the first
    assert (draw(MANY, 4, 0)[0] == pairs[0][0]).mean() < 0.1  # nor a pass on the one before


def test_an_image_is_changed_by_what_it_drew_in_turn() -> None:
    images = photos(64)
    before = images.clone()
    changed = RandAugment(3, 9)(images, MANY[:64], 5)
    assert torch.equal(images, before)
    drawn = [draw(MANY[:64], 5, number) for number in range(3)]
    for i in range(64):
        image = images[i]
        for operation, negative in drawn:
            image = theirs(NAMES[operation[i]], image, 9, -1 if negative[i] else 1)
        assert torch.equal(changed[i], image)


def test_an_image_is_changed_alike_in_any_batch() -> None:
    images, augment = photos(32), RandAugment()
    torch.manual_seed(0)
    whole = augment(images, MANY[:32], 1)
    torch.manual_seed(1)
    halves = torch.cat([augment(images[i::2], MANY[i:32:2], 1) for i in range(2)])
    assert torch.equal(whole[[*range(0, 32, 2), *range(1, 32, 2)]], halves)


def test_no_operations_change_nothing() -> None:
    assert torch.equal(RandAugment(0, 9)(photos(4), MANY[:4], 0), photos(4))


@pytest.mark.parametrize("wrong", [RandAugment(-1), RandAugment(2, 31), RandAugment(2, -1)])
def test_what_cannot_be_meant_is_refused(wrong: RandAugment) -> None:
    with pytest.raises(RecipeError):
        wrong.check()
