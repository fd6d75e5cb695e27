"""Where loaders were seen to break: interrupted, at the edges of an epoch, and told nonsense."""

from __future__ import annotations

import io
import os
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from handmade import Sample, picture, pictures

from curate.datasets.dataset import Dataset
from curate.errors import DataError, MissingError, RecipeError
from train.data import text_columns
from train.data.batch_sampler import BatchSampler
from train.data.block_prefetch import BlockPrefetch
from train.data.epoch_order import BlockOrder
from train.data.loader import Loader
from train.data.samples import Samples, _numbers
from train.data.tar_stream import Stream
from train.data.text_columns import Texts
from train.data.workers import Workers

MakeDataset = Callable[..., Dataset]


def loader(dataset: Dataset, **options: Any) -> Loader:
    standard = {"batch_size": 8, "image_size": 16, "seed": 0, "augment": True, "workers": 0, "cache": "none"}
    return Loader(dataset, **{**standard, **options})


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


class Numbers(NamedTuple):
    """A step of images whose pixels are all one number."""

    number: int
    samples: int = 1
    words: int = 0  # that come with it, so that it is long

    def __len__(self) -> int:
        return self.samples

    def part(self, start: int = 0, stop: int | None = None) -> tuple[int, list[str]]:
        return self.number, [f"{i:0100d}" for i in range(self.words)]


def fill_slowly(images: np.ndarray, part: tuple[int, list[str]]) -> dict[int, str]:
    time.sleep(0.1)
    images[:] = part[0]
    return {}


class Interrupted(Exception):
    pass


def test_after_an_interruption_no_batch_is_mistaken_for_another() -> None:
    def interrupt(*_: object) -> None:
        raise Interrupted

    workers: Workers[Numbers] = Workers(fill_slowly, 1, (1, 1))
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # while the first answer is waited for
        with pytest.raises(Interrupted):
            list(workers.run([Numbers(i) for i in range(1, 5)]))
    finally:
        signal.signal(signal.SIGALRM, before)
    seen = [(step.number, int(images[0, 0])) for step, images, _ in workers.run([Numbers(8), Numbers(9)])]
    workers.close()
    assert seen == [(8, 8), (9, 9)]


@pytest.mark.timeout(30)
def test_long_steps_and_long_answers_do_not_wait_for_each_other() -> None:
    def refuse(images: np.ndarray, part: tuple[int, list[str]]) -> dict[int, str]:
        return {
            i: f"sample {i} of {len(part[1])} cannot be read, and this says why" for i in range(len(images))
        }

    workers: Workers[Numbers] = Workers(refuse, 1, (8192, 1))  # answers of 400 kB to steps of 2 MB
    found = [len(broken) for _, _, broken in workers.run([Numbers(i, 8192, 20_000) for i in range(4)])]
    workers.close()
    assert found == [8192] * 4


def test_a_failure_in_a_worker_shows_where_and_the_next_epoch_starts_anew(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(40)), workers=2)
    fill = one.pipeline.fill
    one.pipeline.fill = None  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="'NoneType' object is not callable"):
        list(one.epoch(0))
    assert not one.processes
    one.pipeline.fill = fill  # type: ignore[method-assign]
    assert sum(map(len, one.epoch(0))) == 40
    one.close()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_workers_that_ended_leave_no_memory_behind(dataset: MakeDataset) -> None:
    def shared() -> int:
        return sum("/dev/zero" in line for line in Path("/proc/self/maps").read_text().splitlines())

    one = loader(dataset(pictures(40)), workers=2)
    list(one.epoch(0))
    before = shared()
    assert before
    for _ in range(3):
        both = one.epoch(0), one.epoch(1)
        for batches in both:
            next(batches)
        assert len(one.processes) == 4
        for batches in both:
            batches.close()
        assert len(one.processes) == 2
    assert shared() == before
    one.close()
    assert shared() < before


def test_a_copy_of_the_caller_does_not_end_its_workers(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(40)), workers=2)
    list(one.epoch(0))
    pids = [process.pid for process in one.processes]
    if (child := os.fork()) == 0:
        one.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert sum(map(len, one.epoch(1))) == 40
    assert [process.pid for process in one.processes] == pids
    one.close()


@pytest.mark.parametrize("image_size", [16, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_rank_without_a_sample_takes_an_empty_step(
    dataset: MakeDataset, image_size: int, workers: int
) -> None:
    one = loader(
        dataset(pictures(21)), image_size=image_size, batch_size=20, rank=3, world_size=4, workers=workers
    )
    batches = list(one.epoch(0))
    assert [len(batch) for batch in batches] == [5, 0]
    assert batches[1].images.shape == (0, 3, image_size, image_size)
    assert batches[1].keys == []
    assert batches[1].fingerprint == 0
    one.close()


def test_every_sample_of_a_prefetch_comes_from_its_files(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Samples(
        dataset(pictures(50, split="train") + pictures(7, split="val")), "train", seed=0, need_labels=True
    )
    prefetch = BlockPrefetch(samples, BlockOrder(samples.chances_N, block_samples=8, window_blocks=2))
    expected = samples.read(np.arange(50))
    readers = []
    read = samples.read

    def noted(rows: np.ndarray) -> list[bytes | DataError]:
        readers.append(threading.current_thread())
        return read(rows)

    monkeypatch.setattr(samples, "read", noted)
    for step in prefetch.ahead(BatchSampler(prefetch.order, 9).epoch(0)):
        rows = step.part().rows
        assert prefetch.read(rows) == [expected[row] for row in rows]
    assert len(readers) == 7  # each block once
    assert threading.main_thread() not in readers
    prefetch.close()


def test_a_block_prefetch_that_cannot_be_written_says_so(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Samples, "remote", True)
    one = loader(dataset(pictures(40)), order="blocks")
    assert one._prefetch
    shutil.rmtree(one._prefetch.folder)
    with pytest.raises(MissingError, match="cannot be written") as caught:
        list(one.epoch(0))
    assert "CURATE_CACHE" in str(caught.value.hint)


NONSENSE = [
    {"batch_size": 0}, {"batch_size": -8}, {"image_size": 0}, {"workers": -1}, {"min_area": 0.0},
    {"min_area": 1.5}, {"min_area": float("nan")}, {"max_broken_fraction": -0.1}, {"max_broken_fraction": 1.5},
]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        *NONSENSE, {"world_size": 0}, {"world_size": -1}, {"order": "random"}, {"cache": "disk"},
        {"crop_from": "middle"},
    ],
)  # fmt: skip
def test_a_loader_refuses_what_cannot_be_meant(dataset: MakeDataset, options: dict[str, Any]) -> None:
    data = dataset(pictures(9))
    with pytest.raises(RecipeError) as caught:
        loader(data, **options)
    assert str([*options.values()][-1]) in caught.value.message
    assert caught.value.hint


def test_a_label_below_zero_is_refused(dataset: MakeDataset) -> None:
    data = dataset([*pictures(4), Sample("all/below", -1, picture(9, 1))])
    with pytest.raises(DataError, match=r"label.* 4 classes"):
        loader(data)


@pytest.mark.parametrize("longest", [10, 64 << 20])  # in files, in memory
def test_columns_of_texts_are_the_same_wherever_they_are_kept(
    monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    monkeypatch.setattr(text_columns, "MAX_BYTES", longest)
    different = [f"key {i}" for i in range(1000)]
    repeated = ["one", None, "two", "one"] * 1000
    parts = [Texts(pa.chunked_array([column[:7], column[7:]])) for column in (different, repeated)]
    rows = np.array([999, 0, 7, 7], np.uint32)
    assert parts[0].take(rows) == [different[i] for i in rows]
    assert parts[1].take(rows) == [repeated[i] for i in rows]
    assert not list(text_columns.cache_folder().glob("*.arrow"))  # they have no names


def write_tar(path: Path, samples: dict[str, bytes]) -> str:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in samples.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return str(path)


def stream(tars: str, **options: Any) -> Stream:
    standard = {
        "batch_size": 8,
        "image_size": 16,
        "seed": 0,
        "augment": True,
        "workers": 0,
        "buffer_samples": 0,
    }
    return Stream(tars, **{**standard, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streams_batch_of_broken_images_alone_is_empty(tmp_path: Path, workers: int) -> None:
    good = {f"{i}.png": picture(i, 0) for i in range(8)}
    path = write_tar(tmp_path / "one.tar", good | {"8.png": b"no image"})
    one = stream(path, workers=workers)
    batches = list(one.epoch(0))
    assert [len(batch) for batch in batches] == [8, 0]
    assert batches[1].images.shape == (0, 3, 16, 16)
    assert batches[1].labels.dtype == torch.int64
    assert list(one.unreadable) == ["8"]


@pytest.mark.parametrize("options", [*NONSENSE, {"buffer_samples": -1}])
def test_a_stream_refuses_what_cannot_be_meant(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write_tar(tmp_path / "one.tar", {"0.png": picture(0, 0)})
    with pytest.raises(RecipeError) as caught:
        stream(path, **options)
    assert str([*options.values()][-1]) in caught.value.message


@pytest.mark.parametrize("image_size", [16, 100])
def test_a_batch_in_parts_of_several_workers_is_the_one_of_a_single_process(
    dataset: MakeDataset, image_size: int
) -> None:
    gone = [Sample(f"all/gone{i}", 0, b"no image") for i in range(3)]
    data = dataset([*pictures(130), *gone])
    options: dict[str, Any] = {"batch_size": 100, "image_size": image_size, "max_broken_fraction": 0.1}
    alone, shared = loader(data, **options), loader(data, workers=3, **options)
    for a, b in zip(alone.epoch(0), shared.epoch(0), strict=True):
        assert a.keys == b.keys
        assert torch.equal(a.images, b.images)
    assert alone.unreadable.reasons == shared.unreadable.reasons
    assert len(alone.unreadable) == 3
    shared.close()


def test_each_epoch_of_blocks_is_shuffled_anew() -> None:
    blocks = BlockOrder(numbers(1000), block_samples=10, window_blocks=4)
    firsts = [{row // 10 for row in blocks.rows(epoch)[:40].tolist()} for epoch in range(3)]
    assert len(firsts[0] & firsts[1]) < 4
    assert len(firsts[1] & firsts[2]) < 4


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_no_broken_image_stands_in_for_another(dataset: MakeDataset, cache: str) -> None:
    gone = [Sample(f"all/gone{i}", 0, b"no image") for i in range(6)]
    one = loader(dataset([*pictures(6), *gone]), max_broken_fraction=0.5, batch_size=5, cache=cache)
    for epoch in range(4):
        keys = [key for batch in one.epoch(epoch) for key in batch.keys]
        assert len(keys) == 12
        assert not any("gone" in key for key in keys)


def test_what_is_left_out_leaves_the_others_at_their_places(dataset: MakeDataset) -> None:
    options: dict[str, Any] = {"order": "manifest", "max_broken_fraction": 0.5}
    data = dataset([*pictures(3), Sample("all/gone", 0, b"no image"), *pictures(4, split="more")])
    (whole,) = loader(data, **options).epoch(0)
    assert len(whole) == 7
    single = list(loader(data, **options, batch_size=1).epoch(0))
    assert [len(batch) for batch in single] == [1, 1, 1, 0, 1, 1, 1, 1]
    assert sum(batch.fingerprint for batch in single) % 2**64 == whole.fingerprint


def test_a_sample_has_another_fingerprint_at_every_place_of_a_run(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(4)), batch_size=1)
    assert len({batch.fingerprint for epoch in range(20) for batch in one.epoch(epoch)}) == 80


def test_squares_that_take_too_much_are_not_kept_unless_asked_for(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(pictures(10))
    size = 10 * 18 * 18 * 3  # bytes: 8/7 of 16 px
    for room, kept in ((size, "device"), (size - 1, "none")):
        monkeypatch.setattr("train.data.loader.CACHE_BYTES", room)
        assert loader(data, cache="auto").cache == kept
        assert loader(data, cache="memory").cache == "memory"


def test_bytes_behind_two_gigabytes_of_a_tar_are_found() -> None:
    offsets = [0, 2**31 + 512, None, 5 * 10**9]
    assert _numbers(pa.chunked_array([offsets], pa.int64()), -1).tolist() == [0, 2**31 + 512, -1, 5 * 10**9]
    assert _numbers(pa.chunked_array([[2**31 - 1, None]], pa.int64()), 0).dtype == np.int32


def test_a_streams_fingerprint_does_not_depend_on_the_size_of_batches(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "one.tar", {f"{i}.png": picture(i, 0) for i in range(12)})
    totals = {
        sum(batch.fingerprint for batch in stream(path, batch_size=size).epoch(1)) % 2**64
        for size in (4, 5, 12)
    }
    assert len(totals) == 1


def test_workers_share_the_work_and_leave_the_images_that_are_in_use_alone() -> None:
    def fill(images: np.ndarray, part: tuple[int, list[str]]) -> dict[int, str]:
        images[:] = part[0]
        return {0: str(os.getpid())}

    workers: Workers[Numbers] = Workers(fill, 3, (4, 1))
    pids = set()
    for step, images, broken in workers.run([Numbers(i, 4) for i in range(1, 30)]):
        time.sleep(0.01)  # in which every free slot is filled
        assert (images == step.number).all()
        pids |= set(broken.values())
    assert len(pids) == 3
    workers.close()


def test_a_block_prefetch_fetches_the_next_window_ahead(dataset: MakeDataset) -> None:
    samples = Samples(dataset(pictures(64)), None, seed=0, need_labels=True)
    prefetch = BlockPrefetch(samples, BlockOrder(samples.chances_N, block_samples=8, window_blocks=2))
    ahead = prefetch.ahead(BatchSampler(prefetch.order, 4).epoch(0))
    next(ahead)
    until = time.monotonic() + 10
    while len(list(prefetch.folder.glob("?????????"))) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(list(prefetch.folder.glob("?????????"))) == 4
    prefetch.close()


def test_a_path_is_not_taken_for_a_dataset(dataset: MakeDataset) -> None:
    with pytest.raises(RecipeError, match="is no dataset") as caught:
        loader(str(dataset(pictures(4)).path))  # type: ignore[arg-type]
    assert "open_dataset" in str(caught.value)
