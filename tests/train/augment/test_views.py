"""Several views of a sample: crops of one decoding, each by its own chance, and the rest as with one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from handmade import Sample, pictures

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.augment import chance, views
from train.augment.crops import random_crops
from train.data.batch import Batch
from train.data.loader import Loader

MakeDataset = Callable[..., Dataset]
BROKEN = Sample("all/broken", 0, b"\x89PNG\r\n\x1a\n but no picture", None)
KINDS = ["square", "photo"]


def loader(dataset: Dataset, **options) -> Loader:
    base = {"batch_size": 8, "image_size": 16, "seed": 0, "augment": True, "workers": 0, "cache": "none"}
    return Loader(dataset, **{**base, "views": 2, **options})


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.keys == b.keys
        and len(a.views) == len(b.views)
        and all(torch.equal(v, w) for v, w in zip(a.views, b.views, strict=True))
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("crop_from", KINDS)
def test_views_differ_and_the_first_is_the_only_one_of_a_loader_of_one(
    dataset: MakeDataset, crop_from: str
) -> None:
    data = dataset(pictures(20))
    one = list(loader(data, views=1, crop_from=crop_from).epoch(0))
    three = list(loader(data, views=3, crop_from=crop_from).epoch(0))
    for a, b in zip(one, three, strict=True):
        assert [len(a.views), len(b.views)] == [1, 3]
        assert torch.equal(a.images, a.views[0])
        assert all(v.shape == a.images.shape and v.dtype == torch.uint8 for v in b.views)
        assert torch.equal(a.images, b.images)  # a PNG is decoded whole, whatever the crop
        for v, w in ((0, 1), (0, 2), (1, 2)):
            assert not any(torch.equal(x, y) for x, y in zip(b.views[v], b.views[w], strict=True))


@pytest.mark.parametrize("crop_from", KINDS)
def test_views_do_not_depend_on_workers_memory_or_ranks(dataset: MakeDataset, crop_from: str) -> None:
    data = dataset(pictures(33))
    reference = list(loader(data, crop_from=crop_from).epoch(1))
    others = [loader(data, workers=w, crop_from=crop_from) for w in (1, 3)]
    if crop_from == "square":
        others += [loader(data, cache=c, crop_from=crop_from) for c in ("memory", "device")]
    for other in others:
        assert same(reference, list(other.epoch(1)))
    halves = [list(loader(data, rank=r, world_size=2, crop_from=crop_from).epoch(1)) for r in (0, 1)]
    for whole, first, second in zip(reference, *halves, strict=True):
        for v in (0, 1):
            assert torch.equal(whole.views[v][0::2], first.views[v])
            assert torch.equal(whole.views[v][1::2], second.views[v])


@pytest.mark.parametrize("crop_from", KINDS)
def test_a_broken_image_is_replaced_in_all_views(dataset: MakeDataset, crop_from: str) -> None:
    one = loader(dataset([*pictures(20), BROKEN]), max_broken_fraction=0.1, crop_from=crop_from)
    batches = list(one.epoch(0))
    assert [len(batch) for batch in batches] == [8, 8, 5]
    assert list(one.unreadable.reasons) == ["all/broken"]
    for batch in batches:
        assert all(len(view) == len(batch) for view in batch.views)
        assert len(batch.chances) == len(batch)
        assert "all/broken" not in batch.keys


def test_an_image_is_decoded_once_for_all_views(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    decode = views.pixels
    monkeypatch.setattr(views, "pixels", lambda *a: calls.append(a) or decode(*a))
    list(loader(dataset(pictures(12)), views=3, crop_from="photo").epoch(0))
    assert len(calls) == 12


def test_chances_and_the_epoch_of_a_batch_are_its_samples(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(12)))
    for epoch in (0, 3):
        for batch in one.epoch(epoch):
            np.testing.assert_array_equal(batch.chances, one.samples.chances_N[batch.rows])
            assert batch.epoch == epoch


def test_views_are_drawn_independently_of_each_other() -> None:
    keys = chance.of_keys([str(i) for i in range(4000)], seed=0)
    crops = [
        random_crops(chance.of_view(keys, view), 0, min_area=0.08, shape=np.array([256, 256]))
        for view in (0, 1, 2)
    ]
    drawn = [column.astype(float) for crop in crops for column in (crop.width, crop.left, crop.flip)]
    correlation = np.corrcoef(drawn).reshape(3, 3, 3, 3)
    for v, w in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(correlation[v, :, w]).max() < 5 / np.sqrt(len(keys))


@pytest.mark.parametrize("options", [{"views": 0}, {"views": 2, "augment": False}])
def test_views_that_cannot_be_meant_are_refused(dataset: MakeDataset, options: dict) -> None:
    with pytest.raises(RecipeError, match="views is"):
        loader(dataset(pictures(8)), **options)
