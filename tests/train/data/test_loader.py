"""The loader's promises: who comes when, with which pixels, and what becomes of broken images."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from handmade import Sample, picture, pictures
from PIL import Image

from curate.datasets.dataset import Dataset
from curate.errors import DataError
from train.augment import decode
from train.data.batch import Batch
from train.data.loader import Loader

MakeDataset = Callable[..., Dataset]
BROKEN = Sample("all/broken", 0, b"\x89PNG\r\n\x1a\n but no picture", None)


def loader(dataset: Dataset, **options) -> Loader:
    return Loader(
        dataset,
        **{
            "batch_size": 8,
            "image_size": 16,
            "seed": 0,
            "augment": True,
            "workers": 0,
            "cache": "none",
            **options,
        },
    )


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.keys == b.keys and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(first, second, strict=True)
    )


def keys(batches: list[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


@pytest.mark.parametrize("cache", ["none", "memory", "device"])
@pytest.mark.parametrize("image_size", [16, 100])  # squares and photos
def test_every_key_comes_once_an_epoch_with_its_label(
    dataset: MakeDataset, cache: str, image_size: int
) -> None:
    samples = pictures(21)
    crop_from = "auto" if cache == "none" else "square"
    batches = list(loader(dataset(samples), cache=cache, image_size=image_size, crop_from=crop_from).epoch(3))
    assert [len(batch) for batch in batches] == [8, 8, 5]
    labels = {s.key: s.label for s in samples}
    assert sorted(keys(batches)) == sorted(labels)
    assert [labels[k] for k in keys(batches)] == [int(x) for batch in batches for x in batch.labels]
    assert batches[0].images.shape == (8, 3, image_size, image_size)
    assert batches[0].images.dtype == torch.uint8


@pytest.mark.parametrize("image_size", [16, 100])
@pytest.mark.parametrize("crop_from", ["square", "photo"])
def test_batches_do_not_depend_on_workers_memory_or_shards(
    dataset: MakeDataset, image_size: int, crop_from: str
) -> None:
    samples = pictures(30)
    overlay, sharded = dataset(samples, "overlay"), dataset(samples, "sharded", sharded=True)
    assert sharded.sharded
    assert not overlay.sharded
    options = {"image_size": image_size, "crop_from": crop_from}
    reference = list(loader(overlay, **options).epoch(1))
    assert reference
    others = [
        loader(overlay, workers=1, **options),
        loader(overlay, workers=3, **options),
        loader(sharded, workers=2, **options),
    ]
    if crop_from == "square":
        others += [
            loader(overlay, workers=w, cache=c, **options) for w in (0, 3) for c in ("memory", "device")
        ]
    for other in others:
        assert same(reference, list(other.epoch(1)))


def test_order_and_crops_differ_by_epoch_and_by_seed_and_repeat(dataset: MakeDataset) -> None:
    data = dataset(pictures(24))
    first = list(loader(data).epoch(0))
    assert same(first, list(loader(data).epoch(0)))
    for other in (list(loader(data).epoch(1)), list(loader(data, seed=1).epoch(0))):
        assert keys(first) != keys(other)
        assert sorted(keys(first)) == sorted(keys(other))
        image = {k: x for batch in first for k, x in zip(batch.keys, batch.images, strict=True)}
        again = {k: x for batch in other for k, x in zip(batch.keys, batch.images, strict=True)}
        assert sum(torch.equal(image[k], again[k]) for k in image) < 3


def test_order_and_crops_follow_the_keys_not_their_places(dataset: MakeDataset) -> None:
    samples = pictures(24)
    assert same(
        list(loader(dataset(samples, "forward")).epoch(0)),
        list(loader(dataset(samples[::-1], "backward")).epoch(0)),
    )


def test_orders_are_uniform(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(10)))
    places = np.array([np.argsort(one.order.rows(epoch)) for epoch in range(2000)])  # of each row
    expected, spread = 4.5, np.sqrt((10**2 - 1) / 12 / 2000)  # mean place, and its standard error
    assert np.abs(places.mean(axis=0) - expected).max() < 5 * spread
    pairs = np.corrcoef(places[:-1, 0], places[1:, 0])[0, 1]  # one epoch tells nothing of the next
    assert abs(pairs) < 5 / np.sqrt(2000)


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_entered_at_any_step(dataset: MakeDataset, cache: str, workers: int) -> None:
    one = loader(dataset(pictures(30)), cache=cache, workers=workers)
    whole = list(one.epoch(2))
    assert len(whole) == one.steps_per_epoch == 4
    assert same(whole[3:], list(one.epoch(2, start_step=3)))


def test_drop_last_leaves_out_the_rest(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(21)), drop_last=True)
    assert one.steps_per_epoch == 2
    assert [len(batch) for batch in one.epoch(0)] == [8, 8]


def test_without_augmentation_it_is_the_middle_in_the_manifests_order(dataset: MakeDataset) -> None:
    data = dataset(pictures(6, size=(48, 36)))
    (batch,) = loader(data, augment=False, order="manifest", image_size=28).epoch(0)
    assert batch.keys == [f"all/{i:04d}" for i in range(6)]
    original = np.asarray(Image.open(data.path.parent / "set-pool" / "all" / "0002.png"))
    square = np.asarray(
        Image.fromarray(original).resize((32, 32), Image.Resampling.BILINEAR, box=(6, 0, 42, 36))
    )
    assert np.abs(batch.images[2].permute(1, 2, 0).numpy().astype(int) - square[2:30, 2:30]).max() <= 1


def test_splits_are_kept_apart(dataset: MakeDataset) -> None:
    data = dataset(
        pictures(8, split="train") + pictures(4, split="val") + pictures(4, split="test") + pictures(3)
    )
    found = {split: keys(list(loader(data, split=split).epoch(0))) for split in ("train", "val", None)}
    assert {key.split("/")[0] for key in found["train"]} == {"train", "all"}
    assert {key.split("/")[0] for key in found["val"]} == {"val"}
    assert (len(found["train"]), len(found["val"]), len(found[None])) == (11, 4, 19)
    with pytest.raises(DataError, match="no rows of the split 'dev'"):
        loader(data, split="dev")


BROKEN_PLACES = [
    ("none", "auto", 16),
    ("none", "auto", 100),
    ("memory", "square", 16),
    ("device", "square", 100),
]


@pytest.mark.parametrize(("cache", "crop_from", "image_size"), BROKEN_PLACES)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_and_replaced_by_the_next_of_the_epoch(
    dataset: MakeDataset, cache: str, crop_from: str, image_size: int, workers: int
) -> None:
    one = loader(
        dataset([*pictures(20), BROKEN]), cache=cache, crop_from=crop_from, image_size=image_size,
        max_broken_fraction=0.1, workers=workers, batch_size=7,
    )  # fmt: skip
    for epoch in (0, 1):
        batches = list(one.epoch(epoch))
        assert [len(batch) for batch in batches] == [7, 7, 7]
        order = one.samples.keys.take(one.order.rows(epoch))
        place = order.index("all/broken")
        seen = keys(batches)
        assert seen[:place] + seen[place + 1 :] == order[:place] + order[place + 1 :]
        assert seen[place] == order[(place + 1) % 21]
        twin = [i for i, key in enumerate(seen) if key == seen[place]]
        images = torch.cat([batch.images for batch in batches])
        assert torch.equal(images[twin[0]], images[twin[1]])  # the stand-in brings its own pixels and label
        labels = torch.cat([batch.labels for batch in batches])
        assert labels[twin[0]] == labels[twin[1]]
    assert list(one.unreadable.reasons) == ["all/broken"]
    assert one.unreadable.reasons["all/broken"]


def test_broken_neighbours_are_passed_over_together(dataset: MakeDataset) -> None:
    gone = [dataclasses.replace(BROKEN, key=f"all/gone{i}") for i in range(3)]
    one = loader(dataset([*pictures(6), *gone]), max_broken_fraction=0.5, batch_size=9)
    for epoch in range(5):
        (batch,) = one.epoch(epoch)
        assert len(batch) == 9
        assert not any(key.startswith("all/gone") for key in batch.keys)
    assert len(one.unreadable) == 3


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_in_the_manifests_order_a_broken_image_is_left_out(dataset: MakeDataset, cache: str) -> None:
    data = dataset([*pictures(3), BROKEN])
    one = loader(data, order="manifest", cache=cache, batch_size=2, max_broken_fraction=0.5)
    batches = list(one.epoch(0))
    assert [batch.keys for batch in batches] == [["all/0000", "all/0001"], ["all/0002"]]
    alone = loader(data, order="manifest", cache=cache, batch_size=1, max_broken_fraction=0.5)
    assert [len(batch) for batch in alone.epoch(0)] == [1, 1, 1, 0]  # still a step


def test_where_nothing_can_be_read_the_run_stops(dataset: MakeDataset) -> None:
    broken = [dataclasses.replace(BROKEN, key=f"all/{i}") for i in range(9)]
    with pytest.raises(DataError, match="no image can be read"):
        list(loader(dataset(broken), max_broken_fraction=1.0).epoch(0))


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_too_many_broken_images_are_an_error_that_says_which(dataset: MakeDataset, cache: str) -> None:
    gone = dataclasses.replace(BROKEN, key="all/gone")
    data = dataset([*pictures(20), BROKEN, gone])
    (data.path.parent / "set-pool" / "all" / "gone.png").unlink()
    with pytest.raises(DataError) as caught:
        list(loader(data, cache=cache, max_broken_fraction=0.05).epoch(0))
    for words in ("2 of 22 images", "9.1%", "all/broken: ", "all/gone: ", "curate verify"):
        assert words in str(caught.value)


def test_labels_are_checked_before_anything_is_read(dataset: MakeDataset) -> None:
    unlabelled = dataset([*pictures(4), Sample("all/none", None, b"")], "unlabelled")
    with pytest.raises(DataError, match="1 of 5 rows have no label"):
        loader(unlabelled)
    assert loader(unlabelled, need_labels=False).labels_N.tolist() == [0, 1, 2, 3, -1]
    with pytest.raises(DataError, match=r"label.* 3 classes"):
        loader(dataset(pictures(4), "beyond", classes=3))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_photographs_are_cut_to_size(dataset: MakeDataset, kind: str) -> None:
    samples = [Sample(f"all/{i}", i % 4, picture(i, i, (700, 500), kind)) for i in range(4)]
    for augment in (True, False):
        (batch,) = loader(dataset(samples, f"{kind}-{augment}"), image_size=112, augment=augment).epoch(0)
        assert batch.images.shape == (4, 3, 112, 112)
        colours = batch.images.float().mean(dim=(2, 3))
        for colour, label in zip(colours, batch.labels, strict=True):
            assert colour.argmax() == (int(label) if label < 3 else int(colour.argmax()))


def test_a_photograph_is_decoded_no_larger_than_its_crop_needs(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    whole = decode.pixels

    def spy(*args):
        shapes.append(whole(*args).shape[:2])
        return whole(*args)

    monkeypatch.setattr("train.augment.views.pixels", spy)
    data = dataset([Sample(f"all/{i}", i % 4, picture(i, i, (800, 640), "JPEG")) for i in range(4)])
    for image_size, expected in ((320, (640, 800)), (230, (320, 400)), (100, (160, 200))):
        shapes.clear()
        list(loader(data, image_size=image_size, augment=False).epoch(0))
        assert shapes == [expected] * 4


@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF")])
def test_other_kinds_of_images_look_as_pillow_shows_them(dataset: MakeDataset, mode: str, kind: str) -> None:
    stream = io.BytesIO()
    Image.open(io.BytesIO(picture(3, 1, (48, 48)))).convert(mode).save(stream, kind)
    data = dataset([Sample("all/odd", 1, stream.getvalue(), ext=kind.lower().replace("jpeg", "jpg"))])
    (batch,) = loader(data, image_size=48, augment=False).epoch(0)
    expected = np.asarray(Image.open(stream).convert("RGB"))
    difference = batch.images[0].permute(1, 2, 0).numpy().astype(int) - expected
    assert np.abs(difference).max() <= 1  # of CMYK; the others are equal


def test_auto_keeps_up_to_a_quarter_of_a_gpus_free_memory(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(pictures(8))
    squares = 8 * 27 * 27 * 3  # bytes, of 24 px times 8/7
    for free, cache in ((4 * squares, "device"), (4 * squares - 4, "none")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_, free=free: (free, 10 * free))
        told = {"batch_size": 4, "image_size": 24, "seed": 0, "augment": True, "workers": 0}
        assert Loader(data, **told, device="cuda").cache == cache
        assert Loader(data, **told, device="cpu").cache == "device"
