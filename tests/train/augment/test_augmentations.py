"""Crops: where they lie, and that they are resized as Pillow resizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from train.augment import chance
from train.augment.crops import Crops, center_batch, crop_batch, random_crops

MANY = chance.of_keys([str(i) for i in range(20_000)], seed=0)


SHAPES = [(256, 256), (500, 375), (375, 500), (1000, 100), (1, 1), (3, 2000)]
TORCHVISION = 1500  # crops that torchvision draws for each case
# Two samples of one distribution lie further apart (Kolmogorov and Smirnov) once in a million times.
APART = np.sqrt(-np.log(1e-6 / 2) / 2 * (1 / len(MANY) + 1 / TORCHVISION))


def _apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of two cumulative distributions."""
    places = np.concatenate([ours, theirs])
    shares = [np.searchsorted(np.sort(one), places, side="right") / len(one) for one in (ours, theirs)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize("min_area", [0.08, 0.35, 0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_crops_have_the_areas_aspects_and_places_of_torchvision(
    shape: tuple[int, int], min_area: float
) -> None:
    width, height = shape
    crops = random_crops(MANY, 0, min_area=min_area, shape=np.array(shape))
    ours = np.stack([crops.left * width, crops.top * height, crops.width * width, crops.height * height])
    np.testing.assert_allclose(ours, ours.round(), atol=1e-9)  # whole pixels
    image = torch.empty(0, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [
            RandomResizedCrop.get_params(image, [min_area, 1.0], [3 / 4, 4 / 3]) for _ in range(TORCHVISION)
        ]
    top, left, tall, wide = np.array(drawn).T
    for name, one, other in (
        ("area", ours[2] * ours[3], wide * tall),
        ("aspect", ours[2] / ours[3], wide / tall),
        ("left", ours[0], left),
        ("top", ours[1], top),
    ):
        assert _apart(one.round(6), other.round(6)) < APART, name


def test_random_crops_lie_inside_and_keep_their_area() -> None:
    for min_area in (0.25, 0.9):
        crops = random_crops(MANY, 0, min_area=min_area, shape=np.array([500, 375]))
        for start, length in ((crops.left, crops.width), (crops.top, crops.height)):
            assert (start >= 0).all()
            assert (start + length <= 1 + 1e-12).all()
        area, aspect = crops.width * crops.height, crops.width * 500 / (crops.height * 375)
        assert min_area - 0.005 <= area.min() < min_area + 0.01  # sides are whole pixels
        assert area.max() <= 1
        assert 0.74 < aspect.min() < aspect.max() < 1.35
        assert abs(crops.flip.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(MANY))


def test_a_crop_does_not_depend_on_the_images_beside_it() -> None:
    shapes = np.tile([[1000, 100], [64, 64], [375, 500], [3, 2000]], (len(MANY) // 4, 1))
    together = random_crops(MANY, 2, min_area=0.35, shape=shapes)
    for i in range(40):
        alone = random_crops(MANY[i : i + 1], 2, min_area=0.35, shape=shapes[i])
        assert [float(column[0]) for column in alone] == [float(column[i]) for column in together]


@pytest.mark.parametrize(("left", "width"), [(0.0, 1.0), (0.25, 0.5), (0.1, 0.83)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_is_resized_as_pillow_does(left: float, width: float, flip: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 37, 3), dtype=np.uint8)
    squares = np.asarray(Image.fromarray(noise).resize((37, 37), box=(3, 3, 20, 20)))[None]
    one = np.array([left]), np.array([0.2]), np.array([width]), np.array([0.7])
    ours = crop_batch(torch.from_numpy(squares.copy()), Crops(*one, np.array([flip])), 24)[0]
    box = (left * 37, 0.2 * 37, (left + width) * 37, 0.9 * 37)
    theirs = Image.fromarray(squares[0]).resize((24, 24), Image.Resampling.BILINEAR, box=box)
    if flip:
        theirs = theirs.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    difference = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - np.asarray(theirs))
    # At a crop's edge Pillow looks only at pixels of the box, and ours also at their neighbours outside of it.
    assert difference[2:-2, 2:-2].max() <= 2
    assert difference.mean() < 1.5


def test_the_center_is_the_center() -> None:
    squares = torch.arange(36, dtype=torch.uint8).reshape(1, 6, 6, 1).expand(1, 6, 6, 3)
    assert center_batch(squares, 2)[0, 0].tolist() == [[14, 15], [20, 21]]


def test_decisions_are_independent() -> None:
    drawn = [chance.uniform(MANY, epoch, salt) for epoch in (0, 1) for salt in ("crop/x", "crop/y")]
    correlation = np.corrcoef(drawn) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(MANY))
    assert all(one.min() >= 0 and one.max() < 1 for one in drawn)
