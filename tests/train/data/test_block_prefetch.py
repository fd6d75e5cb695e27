"""Blocks fetched ahead from a store: the same batches, in fewer reads, and nothing left on the disk."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from handmade import pictures

from curate.datasets.dataset import Dataset
from curate.errors import MissingError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.files import cache_folder
from train.data import epoch_order
from train.data.block_prefetch import BlockPrefetch
from train.data.loader import Loader
from train.data.samples import Samples

MakeDataset = Callable[..., Dataset]


def loader(dataset: Dataset, **options) -> Loader:
    standard = {"batch_size": 8, "image_size": 8, "seed": 0, "augment": True, "workers": 0, "cache": "none"}
    return Loader(dataset, **{**standard, "order": "blocks", **options})


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_order, "BLOCK_SAMPLES", 10)
    monkeypatch.setattr(epoch_order, "WINDOW_BLOCKS", 2)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take files for a store; list how many ranges each call asks of it."""
    calls: list[int] = []
    read_many = ByteRangeReader.read_many

    def counted(self: ByteRangeReader, files, offsets, sizes):
        calls.append(len(files))
        return read_many(self, files, offsets, sizes)

    monkeypatch.setattr(Samples, "remote", True)
    monkeypatch.setattr(ByteRangeReader, "read_many", counted)
    return calls


def folders() -> list[Path]:
    return list(cache_folder().glob("blocks-*"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sharded", [False, True])
def test_batches_are_those_without_a_block_prefetch(
    dataset: MakeDataset, store: list[int], monkeypatch: pytest.MonkeyPatch, workers: int, sharded: bool
) -> None:
    data = dataset(pictures(153, size=(20, 18)), sharded=sharded)
    fetched = loader(data, workers=workers)
    with monkeypatch.context() as patch:
        patch.setattr(Samples, "remote", False)
        plain = loader(data, workers=workers)
    assert folders()
    for start in (0, 15):
        took, wanted = fetched.batches(start), plain.batches(start)
        for _ in range(24):  # more than an epoch
            a, b = next(took), next(wanted)
            assert a.keys == b.keys
            assert torch.equal(a.images, b.images)
        took.close()
        wanted.close()
        assert len(list(folders()[0].iterdir())) <= 14  # of 16: windows under way and behind
    if workers == 0:
        # Whole blocks; the plain loader, which comes second, asks for eight at a time.
        assert set(store[: store.index(8)]) <= {10, 3}
    fetched.close()
    plain.close()
    del fetched, took
    gc.collect()
    assert not folders()


def test_a_block_that_cannot_be_fetched_is_read_by_the_sample(dataset: MakeDataset, store: list[int]) -> None:
    data = dataset(pictures(40))
    os.unlink(data.path.parent / "set-pool" / "all" / "0013.png")
    one = loader(data, max_broken_fraction=0.5)
    seen = [key for batch in one.epoch(0) for key in batch.keys]
    assert set(seen) == {f"all/{i:04d}" for i in range(40)} - {"all/0013"}
    assert list(one.unreadable.reasons) == ["all/0013"]
    assert "0013.png" in one.unreadable.reasons["all/0013"]


def test_a_block_prefetch_is_for_workers_to_read_and_for_its_owner_to_drop(
    dataset: MakeDataset, store: list[int]
) -> None:
    data = dataset(pictures(40))
    samples = Samples(data, None, seed=0, need_labels=True)
    prefetch = BlockPrefetch(samples, loader(data).order)
    list(prefetch.ahead(loader(data).sampler.epoch(0)))
    if os.fork() == 0:  # a worker that ends
        del prefetch
        os._exit(0)
    os.wait()
    assert list(prefetch.folder.iterdir())
    prefetch.close()
    assert not prefetch.folder.exists()


def test_a_prefetch_that_is_forgotten_waits_for_no_thread_and_leaves_nothing(
    dataset: MakeDataset, store: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage collector runs anywhere, also where its thread holds a lock that the end of a thread needs."""
    data = dataset(pictures(40))
    before = set(cache_folder().iterdir())
    prefetch = BlockPrefetch(Samples(data, None, seed=0, need_labels=True), loader(data).order)
    list(prefetch.ahead(loader(data).sampler.epoch(0)))
    began, go_on, read = threading.Event(), threading.Event(), prefetch.samples.read

    def slow(rows):
        began.set()
        assert go_on.wait(60)
        return read(rows)

    monkeypatch.setattr(prefetch.samples, "read", slow)
    (thread, *_), under_way = prefetch._pool._threads, prefetch._pool.submit(prefetch._fetch_block, 0)
    began.wait(60)
    waits: list[str] = []
    finalizer = prefetch._drop
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda self, timeout=None: waits.append(self.name))
        finalizer()  # as the collector calls it
    assert waits == []
    assert set(cache_folder().iterdir()) == before
    go_on.set()
    with pytest.raises(MissingError):
        under_way.result(60)
    thread.join(60)
    assert set(cache_folder().iterdir()) == before
