"""Crops: where they lie, and that they are resized as Pillow resizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from train import chances
from train.augmentations import Crops, center_batch, crop_batch, random_crops

MANY = chances.of_keys([str(i) for i in range(4000)], seed=0)


def test_random_crops_lie_inside_and_keep_their_area() -> None:
    crops = random_crops(MANY, 0, min_area=0.25)
    for start, length in ((crops.left, crops.width), (crops.top, crops.height)):
        assert (start >= 0).all()
        assert (start + length <= 1 + 1e-12).all()
    area, aspect = crops.width * crops.height, crops.width / crops.height
    assert 0.25 <= area.min() < 0.26
    assert area.max() <= 1
    assert (aspect >= 3 / 4 - 1e-9).all()
    assert (aspect <= 4 / 3 + 1e-9).all()
    assert abs(crops.flip.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(MANY))


def test_a_crop_of_a_wide_image_keeps_its_aspect_in_pixels() -> None:
    shape = np.tile([400, 100], (len(MANY), 1))
    crops = random_crops(MANY, 0, min_area=0.1, shape=shape)
    small = crops.height < 1  # the others were cut to the edge
    assert small.sum() > 100
    aspect = (crops.width * 400 / (crops.height * 100))[small]
    assert aspect.min() >= 3 / 4 - 1e-9
    assert aspect.max() <= 4 / 3 + 1e-9


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
    drawn = [chances.uniform(MANY, epoch, salt) for epoch in (0, 1) for salt in ("crop/x", "crop/y")]
    correlation = np.corrcoef(drawn) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(len(MANY))
    assert all(one.min() >= 0 and one.max() < 1 for one in drawn)
