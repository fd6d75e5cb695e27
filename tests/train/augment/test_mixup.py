"""Mixup and CutMix: as timm and torchvision mix, and drawn as they should be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from timm.data import mixup as timm_mixup
from torch import Tensor
from torchvision.transforms import v2

from curate.errors import RecipeError
from train.augment import chance
from train.augment.mixup import Boxes, Mix, blend, cuts, patches, shares, targets, weights

MANY = chance.of_keys([str(i) for i in range(20_000)], seed=0)
CPU = torch.device("cpu")
WHOLE = Boxes(*(np.zeros(8, np.int64) for _ in range(4)))  # nothing is cut


def batch(count: int = 8, height: int = 20, width: int = 15) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, height, width, generator=generator), torch.arange(count) % 5


def test_mixup_is_timms_for_the_same_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = batch()
    kept = np.linspace(0.05, 1, 8)
    mixer = timm_mixup.Mixup(mixup_alpha=0.8, mode="elem", num_classes=5, label_smoothing=0.1)
    monkeypatch.setattr(mixer, "_params_per_elem", lambda _: (kept.astype("f4"), np.zeros(8, bool)))
    theirs, their_targets = mixer(images.clone(), labels)
    ours = blend(images, images.flip(0), weights(kept, WHOLE, 20, 15, CPU))
    pairs = torch.stack([labels, labels.flip(0)], dim=1)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(targets(pairs, kept, 5, 0.1), their_targets, atol=1e-6, rtol=1e-6)


def test_cutmix_is_timms_for_the_same_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = batch()
    kept = np.linspace(0.05, 0.99, 8)
    rows = np.random.RandomState(3)
    asked = []

    def box(shape: tuple[int, ...], share: float, **_: object) -> tuple[int, ...]:
        np.random.set_state(rows.get_state())
        found = ORIGINAL(shape, share)
        rows.set_state(np.random.get_state())
        asked.append([int(side) for side in found])
        return found

    monkeypatch.setattr(timm_mixup, "rand_bbox", lambda shape, lam, count=None: box(shape, lam))
    mixer = timm_mixup.Mixup(mixup_alpha=0, cutmix_alpha=1.0, mode="elem", num_classes=5, label_smoothing=0.1)
    monkeypatch.setattr(mixer, "_params_per_elem", lambda _: (kept.astype("f4"), np.ones(8, bool)))
    theirs, their_targets = mixer(images.clone(), labels)
    boxes = Boxes(*np.array(asked).T)
    ours = blend(images, images.flip(0), weights(np.ones(8), boxes, 20, 15, CPU))
    assert torch.equal(ours, theirs)
    left = 1 - (boxes.bottom - boxes.top) * (boxes.right - boxes.left) / 300
    pairs = torch.stack([labels, labels.flip(0)], dim=1)
    torch.testing.assert_close(targets(pairs, left, 5, 0.1), their_targets, atol=1e-6, rtol=1e-6)


ORIGINAL = timm_mixup.rand_bbox


def test_a_patch_is_as_large_as_timms_around_the_same_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, some = np.random.default_rng(0).random(500), MANY[:500]
    ours = patches(kept, some, 0, 20, 15)
    centers = [
        (chance.uniform(some, 0, salt) * length).astype(int)
        for salt, length in (("mix/y", 20), ("mix/x", 15))
    ]
    for i in range(500):
        answers = iter([centers[0][i], centers[1][i]])
        monkeypatch.setattr(np.random, "randint", lambda low, high, size=None, a=answers: next(a))
        assert ORIGINAL((3, 20, 15), kept[i]) == tuple(side[i] for side in ours)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_torchvisions_for_the_same_draw(kind: str) -> None:
    images, labels = batch()
    params: dict[str, object]
    if kind == "mixup":
        params, transform = {"lam": 0.3}, v2.MixUp(alpha=1.0, num_classes=5)
        kept, boxes, left = np.full(8, 0.3), WHOLE, np.full(8, 0.3)
    else:
        params = {"box": (2, 5, 9, 12), "lam_adjusted": 1 - 7 * 7 / 300}  # x1, y1, x2, y2
        transform = v2.CutMix(alpha=1.0, num_classes=5)
        kept, left = np.ones(8), np.full(8, 1 - 7 * 7 / 300)
        boxes = Boxes(*(np.full(8, side) for side in (5, 12, 2, 9)))
    params |= {"labels": labels, "batch_size": 8}
    theirs = transform.transform(images, params)
    ours = blend(images, images.roll(1, dims=0), weights(kept, boxes, 20, 15, CPU))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    pairs = torch.stack([labels, labels.roll(1)], dim=1)
    torch.testing.assert_close(
        targets(pairs, left, 5), transform.transform(labels, params), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_shares_are_drawn_from_beta(name: str, alpha: float) -> None:
    kept = shares(MANY, 0, Mix(**{name: alpha}))
    assert kstest(kept, beta(alpha, alpha).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(kept, shares(MANY, 1, Mix(**{name: alpha})))[0, 1]) < 5 / np.sqrt(len(MANY))


def test_as_many_are_cut_and_mixed_as_asked() -> None:
    mix = Mix(mixup=0.8, cutmix=1.0, switch=0.3, fraction=0.6)
    cut, kept = cuts(MANY, 0, mix), shares(MANY, 0, mix)
    near = 5 * 0.5 / np.sqrt(len(MANY))
    assert abs(cut.mean() - 0.3) < near
    assert abs((kept < 1).mean() - 0.6) < near
    assert kstest(kept[cut & (kept < 1)], beta(1, 1).cdf).pvalue > 1e-3
    assert kstest(kept[~cut & (kept < 1)], beta(0.8, 0.8).cdf).pvalue > 1e-3


def test_the_target_is_what_is_seen() -> None:
    """Images that hold their own label show, as their mean, how much of whom is in the mix."""
    labels = torch.arange(64) % 2
    images = labels.float().view(-1, 1, 1, 1).expand(64, 3, 32, 24)
    mixed, soft = Mix(mixup=0.8, cutmix=1.0)(images, labels, MANY[:64], 0, num_classes=2)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), soft[:, 1], atol=1e-5, rtol=0)
    cut = cuts(MANY[:64], 0, Mix(mixup=0.8, cutmix=1.0))
    assert 10 < cut.sum() < 54
    assert ((mixed == 0) | (mixed == 1))[torch.from_numpy(cut)].all()
    assert soft.max() <= 1 + 1e-6
    torch.testing.assert_close(soft.sum(1), torch.ones(64))


def test_a_mix_does_not_depend_on_any_generator_or_who_stands_beside() -> None:
    images, labels = batch(16)
    mix = Mix(mixup=0.2, cutmix=1.0, smoothing=0.1)
    np.random.seed(0)
    torch.manual_seed(0)
    first = mix(images, labels, MANY[:16], 7, num_classes=5)
    np.random.seed(1)
    torch.manual_seed(1)
    again = mix(images, labels, MANY[:16], 7, num_classes=5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], mix(images, labels, MANY[:16], 8, num_classes=5)[0])
    assert np.array_equal(shares(MANY[:16], 7, mix)[::2], shares(MANY[:16:2], 7, mix))


def test_without_a_mix_labels_are_smoothed_alone() -> None:
    images, labels = batch()
    same, soft = Mix(smoothing=0.2)(images, labels, MANY[:8], 0, num_classes=5)
    assert same is images
    plain = torch.nn.functional.cross_entropy(images[:, 0, :5, 0], labels, label_smoothing=0.2)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(images[:, 0, :5, 0], soft), plain)


def test_images_stay_channels_last_and_of_their_type() -> None:
    images, labels = batch()
    for dtype in (torch.float32, torch.bfloat16):
        given = images.to(dtype, memory_format=torch.channels_last)
        mixed, _ = Mix(mixup=1.0)(given, labels, MANY[:8], 0, num_classes=5)
        assert mixed.dtype == dtype
        assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "wrong", [{"mixup": -1.0}, {"cutmix": float("nan")}, {"switch": 1.5}, {"smoothing": -0.1}]
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        Mix(**wrong).check()
