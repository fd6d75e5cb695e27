"""Training from an object store: a real S3 server on the loopback, which may go away."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from handmade import pictures
from stores import Store

from curate.datasets.dataset import Dataset, open_dataset
from curate.io.stores import StoreError
from train.data import epoch_order
from train.data.loader import Loader
from train.data.tar_stream import Stream
from train.loop.loop import Loop
from train.methods.supervised import SupervisedConfig, train

pytest.importorskip("s3fs", reason="needs s3fs")


def moved(data: Dataset, url: str) -> Dataset:
    """Copy a dataset with its shards into the store."""
    fsspec.filesystem("s3", use_listings_cache=False).put(str(data.path), url, recursive=True)
    return open_dataset(url)


def loader(data: Dataset, **options: Any) -> Loader:
    standard = {"batch_size": 8, "image_size": 16, "seed": 0, "augment": True, "workers": 0, "cache": "none"}
    return Loader(data, **{**standard, **options})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("order", ["shuffled", "blocks"])
def test_batches_from_a_store_are_those_from_files(
    dataset: Any, bucket: str, workers: int, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_order, "BLOCK_SAMPLES", 10)
    monkeypatch.setattr(epoch_order, "WINDOW_BLOCKS", 2)
    here = dataset(pictures(40, size=(20, 18)), sharded=True)
    there = loader(moved(here, f"{bucket}/set"), workers=workers, order=order)
    for a, b in zip(there.epoch(1), loader(here, order=order).epoch(1), strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.images, b.images)
    there.close()


def test_a_run_whose_store_goes_away_stops_and_goes_on_when_it_is_back(
    dataset: Any, bucket: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = dataset(pictures(48), sharded=True)
    there = moved(here, f"{bucket}/set")
    # No workers: they are copies of this process, and would keep its server's port open.
    config = SupervisedConfig(
        model="convnet", image_size=8, epochs=4, batch_size=16, workers=0, cache="none", device="cpu"
    )
    learn, learned = Loop._step, []

    def learn_and_count(loop: Loop, batch: Any) -> None:
        learned.append(loop.state.step)
        if loop.state.step == 3:
            store.stop()
        learn(loop, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", learn_and_count)
        try:
            with pytest.raises(StoreError, match="the store failed 3 times"):
                train(there, tmp_path / "run", config, quiet=True)
        finally:
            store.start()
        stopped = learned[-1]
        assert 3 <= stopped < 11
        run = train(there, tmp_path / "run", config, quiet=True)
        assert learned == list(range(12))  # no step twice: what was learned before the store went was saved
    local = train(here, tmp_path / "other", config, quiet=True)
    assert run.digest == local.digest
    assert run.info.samples_fingerprint == local.info.samples_fingerprint


def test_an_object_that_is_gone_is_a_broken_sample_and_no_reason_to_stop(dataset: Any, bucket: str) -> None:
    here = dataset(pictures(20))
    store = fsspec.filesystem("s3", use_listings_cache=False)
    store.put(str(here.path), f"{bucket}/set", recursive=True)
    store.put(str(here.path.parent / "set-pool"), f"{bucket}/set-pool", recursive=True)
    store.rm(f"{bucket}/set-pool/all/0007.png")
    there = open_dataset(f"{bucket}/set")
    there.info = there.info.model_copy(update={"root": f"{bucket}/set-pool"})
    one = loader(there, max_broken_fraction=0.1)
    assert sum(len(batch) for batch in one.epoch(0)) == 20
    assert list(one.unreadable.reasons) == ["all/0007"]


def test_a_stream_reads_tars_from_a_store(bucket: str) -> None:
    store = fsspec.filesystem("s3", use_listings_cache=False)
    for number in range(2):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for sample in pictures(8, split=f"part{number}"):
                member = tarfile.TarInfo(f"{sample.key}.png")
                member.size = len(sample.data)
                tar.addfile(member, io.BytesIO(sample.data))
        store.pipe_file(f"{bucket}/{number}.tar", stream.getvalue())
    one = Stream(f"{bucket}/{{0..1}}.tar", batch_size=8, image_size=16, seed=0, augment=True, workers=0)
    assert len({key for batch in one.epoch(0) for key in batch.keys}) == 16
