"""Changes of colour and sharpness: each as torchvision's, and what is drawn distributed as torchvision draws it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import functional as theirs
from torchvision.transforms import v2

from curate.errors import RecipeError
from train.augment import chance, color
from train.augment.color import BRIGHTNESS, CONTRAST, HUE, SATURATION, ColorAugment, ColorDraws

MANY = chance.of_keys([str(i) for i in range(4000)], seed=0)
ALPHA = 1e-4  # of each test of a distribution; seeds are fixed, so a test that passes always does
THEIRS = {
    BRIGHTNESS: theirs.adjust_brightness,
    CONTRAST: theirs.adjust_contrast,
    SATURATION: theirs.adjust_saturation,
    HUE: theirs.adjust_hue,
}


@pytest.fixture
def images() -> Tensor:
    """24 images of 20 px, with flat grey, black, white and pure colours among their pixels."""
    pixels = np.random.default_rng(0).random((24, 3, 20, 20)).astype(np.float32)
    pixels[:, :, 0, :6] = np.array(
        [[0, 1, 0.5, 1, 0, 0.3], [0, 1, 0.5, 0, 1, 0.3], [0, 1, 0.5, 0, 0, 0.9]], np.float32
    )
    pixels[1] = pixels[1, :1]  # grey all over
    return torch.from_numpy(pixels)


def draws(count: int, **changes: np.ndarray) -> ColorDraws:
    still = ColorDraws(
        order=np.tile(np.arange(4), (count, 1)),
        factors=np.tile([1.0, 1.0, 1.0, 0.0], (count, 1)),
        grey=np.zeros(count, bool),
        sigma=np.zeros(count),
        solarize=np.zeros(count, bool),
    )
    return dataclasses.replace(still, **changes)


@pytest.mark.parametrize("op", THEIRS)
def test_each_image_is_changed_by_its_own_factor_as_torchvision_does(images: Tensor, op: int) -> None:
    low, high = (-0.5, 0.5) if op == HUE else (0.0, 1.8)
    factors = np.tile([1.0, 1.0, 1.0, 0.0], (len(images), 1))
    factors[:, op] = np.linspace(low, high, len(images))
    factors[5] = (1, 1, 1, 0)
    ours = color.jitter(images.clone(), np.tile(np.arange(4), (len(images), 1)), factors)
    for i, image in enumerate(images):
        torch.testing.assert_close(ours[i], THEIRS[op](image, factors[i, op]), rtol=0, atol=2e-6)
    assert torch.equal(ours[5], images[5])
    assert (ours[7] - images[7]).abs().max() > 0.05


def test_each_image_is_jittered_in_its_own_order(images: Tensor) -> None:
    orders = np.array(list(itertools.permutations(range(4))))
    factors = np.random.default_rng(1).uniform([0.4, 0.4, 0.4, -0.2], [1.6, 1.6, 1.6, 0.2], (24, 4))
    ours = color.jitter(images.clone(), orders, factors)
    for i, image in enumerate(images):
        for op in orders[i]:
            image = THEIRS[op](image, factors[i, op])
        torch.testing.assert_close(ours[i], image, rtol=0, atol=1e-5)
    swapped = color.jitter(images.clone(), orders[::-1].copy(), factors)
    differs = (ours - swapped).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert differs.sum() > 18  # all but the grey image, and where two that commute change places


@pytest.mark.parametrize(("side", "radius"), [(20, 1), (20, 3), (33, 11)])
def test_each_image_is_blurred_by_its_own_sigma_as_torchvision_does(side: int, radius: int) -> None:
    images = torch.rand(12, 3, side, side, generator=torch.Generator().manual_seed(0))
    sigma = np.linspace(0.1, 4.0, len(images))
    ours = color.blurred(images, sigma, radius)
    for i, image in enumerate(images):
        expected = theirs.gaussian_blur(image, [2 * radius + 1] * 2, [sigma[i]] * 2)
        torch.testing.assert_close(ours[i], expected, rtol=0, atol=2e-6)


def test_grey_and_solarized_images_are_torchvisions(images: Tensor) -> None:
    some = np.arange(len(images)) % 3 == 0
    grey = color.greyed(images.clone(), some)
    solarized = color.solarized(images, some)
    for i, image in enumerate(images):
        expected = theirs.rgb_to_grayscale(image, 3) if some[i] else image
        torch.testing.assert_close(grey[i], expected, rtol=0, atol=1e-6)
        assert torch.equal(solarized[i], theirs.solarize(image, 0.5) if some[i] else image)
    assert torch.equal(grey[~torch.from_numpy(some)], images[~torch.from_numpy(some)])


def test_operations_follow_each_other_as_in_simclr(images: Tensor) -> None:
    changed = draws(
        len(images),
        factors=np.tile([1.3, 0.7, 1.2, 0.1], (len(images), 1)),
        grey=np.arange(len(images)) % 2 == 0,
        sigma=np.where(np.arange(len(images)) % 3 == 0, 1.5, 0),
        solarize=np.arange(len(images)) % 5 == 0,
    )
    ours = ColorAugment(solarize_share=0.2, blur_span=0.25)(images.clone(), changed)
    for i, image in enumerate(images):
        for op, factor in enumerate(changed.factors[i]):
            image = THEIRS[op](image, factor)
        image = theirs.rgb_to_grayscale(image, 3) if changed.grey[i] else image
        image = theirs.gaussian_blur(image, [5, 5], [1.5, 1.5]) if changed.sigma[i] else image
        image = theirs.solarize(image, 0.5) if changed.solarize[i] else image
        off = (ours[i] - image).abs() > 1e-5
        assert off.float().mean() < (
            0.01 if changed.solarize[i] else 1e-9
        )  # what lies at 0.5 falls to either side


def test_an_image_that_nothing_falls_to_is_unchanged_to_the_bit(images: Tensor) -> None:
    color_augment = ColorAugment(solarize_share=0.2)
    drawn = color_augment.draw(MANY[: len(images)], 0)
    hit = (drawn.factors != (1, 1, 1, 0)).any(axis=1) | drawn.grey | drawn.solarize | (drawn.sigma > 0)
    assert 0 < hit.sum() < len(hit)
    changed = color_augment(images.clone(), drawn)
    same = torch.tensor([torch.equal(a, b) for a, b in zip(changed, images, strict=True)])
    assert same[~torch.from_numpy(hit)].all()
    assert not same[torch.from_numpy(hit)].any()
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_an_image_does_not_depend_on_the_others_of_its_batch(images: Tensor) -> None:
    color_augment = ColorAugment(solarize_share=0.2)
    whole = color_augment(images.clone(), color_augment.draw(MANY[: len(images)], 3))
    parts = [
        color_augment(images[at].clone(), color_augment.draw(MANY[: len(images)][at], 3))
        for at in (slice(0, 5), slice(5, 6), slice(6, 24))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)


def test_factors_are_distributed_as_torchvisions() -> None:
    reach = (0.8, 0.4, 1.2, 0.2)
    drawn = ColorAugment(reach, jitter_share=0.8).draw(MANY, 0)
    jittered = (drawn.factors != (1, 1, 1, 0)).any(axis=1)
    assert stats.binomtest(int(jittered.sum()), len(MANY), 0.8).pvalue > ALPHA
    torch.manual_seed(0)
    peer = v2.ColorJitter(*reach)
    sampled = [peer.make_params([]) for _ in range(len(MANY))]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for op, name in enumerate(names):
        their_factors = [float(params[name]) for params in sampled]
        assert stats.ks_2samp(drawn.factors[jittered, op], their_factors).pvalue > ALPHA
    assert drawn.factors[:, :3].min() >= 0  # also of the saturation, where 1 - 1.2 is cut to 0
    correlation = np.corrcoef(drawn.factors[jittered].T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(jittered.sum())


def test_all_orders_are_equally_likely() -> None:
    orders, counts = np.unique(ColorAugment().draw(MANY, 0).order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > ALPHA
    first_of_theirs = [
        v2.ColorJitter(0.1, 0.1, 0.1, 0.1).make_params([])["fn_idx"].tolist() for _ in range(2000)
    ]
    assert len({tuple(order) for order in first_of_theirs}) == 24


def test_blurs_are_distributed_as_torchvisions_and_shares_are_kept() -> None:
    drawn = ColorAugment(grey_share=0.2, blur_share=0.5, solarize_share=0.1).draw(MANY, 0)
    torch.manual_seed(0)
    peer = v2.GaussianBlur(23, (0.1, 2.0))
    their_sigmas = [peer.make_params([])["sigma"][0] for _ in range(len(MANY))]
    assert stats.ks_2samp(drawn.sigma[drawn.sigma > 0], their_sigmas).pvalue > ALPHA
    for hits, share in ((drawn.grey, 0.2), (drawn.sigma > 0, 0.5), (drawn.solarize, 0.1)):
        assert stats.binomtest(int(hits.sum()), len(MANY), share).pvalue > ALPHA
    together = np.corrcoef([drawn.grey, drawn.sigma > 0, drawn.solarize]) - np.eye(3)
    assert np.abs(together).max() < 5 / np.sqrt(len(MANY))


def test_epochs_and_views_draw_anew_and_repeat() -> None:
    color_augment = ColorAugment()
    first = color_augment.draw(MANY, 0)
    np.testing.assert_array_equal(first.factors, color_augment.draw(MANY, 0).factors)
    for other in (color_augment.draw(MANY, 1), color_augment.draw(chance.of_view(MANY, 1), 0)):
        assert abs(np.corrcoef(first.factors[:, 0], other.factors[:, 0])[0, 1]) < 5 / np.sqrt(len(MANY))


@pytest.mark.parametrize(
    "options",
    [{"jitter": (0.8, 0.8, 0.8, 0.6)}, {"jitter": (-0.1, 0, 0, 0)}, {"grey_share": 1.5}, {"blur_sigma": (0.0, 2.0)},
     {"blur_sigma": (2.0, 0.1)}, {"blur_span": -0.1}],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(options: dict) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ColorAugment(**options)
