"""Blocks of a dataset fetched ahead from slow storage, a window at a time, and read from local files."""

# N samples, B of them

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from curate.errors import DataError, MissingError
from curate.io.files import cache_folder
from train.data.batch_sampler import BatchRows
from train.data.epoch_order import BlockOrder
from train.data.samples import Samples

FETCHED_AT_ONCE = 4  # blocks
KEPT_WINDOWS = 2  # behind the one that is being read: workers are a few batches behind


class BlockPrefetch:
    """Read samples in the order of `BlockOrder` from local files, each a block's bytes, fetched before they are wanted.

    A block costs a few large reads where its samples would cost one each. The windows that are being
    read and the next one are on disk. What is not there (it could not be fetched, or came too late) is read from the
    store itself.

    Args:
        samples: whose bytes.
        order: theirs.
    """

    def __init__(self, samples: Samples, order: BlockOrder) -> None:
        self.samples = samples
        self.order = order
        cache_folder().mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="blocks-", dir=cache_folder()))
        sizes_N = np.maximum(samples.sizes_N, 0).astype(np.int64)
        self._ends_N = np.cumsum(sizes_N)  # where a sample's bytes would end if all stood in one file
        self._windows: dict[tuple[int, int], dict[int, Future[None]]] = {}  # (epoch, window) -> its blocks
        self._pool = ThreadPoolExecutor(FETCHED_AT_ONCE)
        self._owner = os.getpid()
        self._drop = weakref.finalize(self, _drop, self._pool, self.folder, self._owner)

    def ahead(self, steps: Iterable[BatchRows]) -> Iterator[BatchRows]:
        """Yield each step when its blocks are on disk, and fetch those of the next window meanwhile."""
        for step in steps:
            if len(step):
                needed = np.unique(step.places // self.order.window_samples).tolist()
                for window in [*needed, needed[-1] + 1]:
                    self._fetch(step, window)
                for window in needed:
                    for fetched in self._windows[step.epoch, window].values():
                        fetched.result()
                self._forget(len(needed))
            yield step

    def read(self, rows_B: np.ndarray) -> list[bytes | DataError]:
        """Return the bytes of samples, or why they cannot be read. This runs in a worker."""
        answers: list[bytes | DataError] = [b""] * len(rows_B)
        missing = []
        for i, row in enumerate(rows_B.tolist()):
            block = row // self.order.block_samples
            size = int(self.samples.sizes_N[row])
            start = int(self._ends_N[row]) - max(size, 0) - self._start(block)
            try:
                with open(self._file(block), "rb", buffering=0) as stream:
                    stream.seek(start)
                    answers[i] = data = stream.read(size) if size > 0 else b""
            except FileNotFoundError:
                data = b""
            if len(data) != size:
                missing.append(i)
        for i, answer in zip(missing, self.samples.read(rows_B[missing]) if missing else [], strict=True):
            answers[i] = answer
        return answers

    def close(self) -> None:
        """Wait for the blocks that are being fetched, and drop the files."""
        if os.getpid() == self._owner:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._drop()

    def _fetch(self, step: BatchRows, window: int) -> None:
        if (step.epoch, window) in self._windows:
            return
        size = self.order.window_samples
        rows = step.order[window * size : (window + 1) * size]
        blocks = np.unique(np.asarray(rows, np.int64) // self.order.block_samples).tolist()
        known = {block: fetched for blocks in self._windows.values() for block, fetched in blocks.items()}
        self._windows[step.epoch, window] = {
            b: known.get(b) or self._pool.submit(self._fetch_block, b) for b in blocks
        }

    def _fetch_block(self, block: int) -> None:
        """Write a block's file, wholly or not at all."""
        path = self._file(block)
        first = block * self.order.block_samples
        rows = np.arange(first, min(first + self.order.block_samples, len(self.samples)))
        images: list[bytes] = []
        for answer, size in zip(self.samples.read(rows), self.samples.sizes_N[rows].tolist(), strict=True):
            # A hole, which reads as zeros, would pass for an image: a block with one is not kept.
            if isinstance(answer, DataError) or len(answer) != max(size, 0):
                return
            images.append(answer)
        beside = path.with_suffix(".tmp")
        try:
            with open(beside, "wb") as stream:
                stream.writelines(images)
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise MissingError(
                f"{path}: a block of {sum(map(len, images))} bytes cannot be written ({error.strerror})",
                hint="CURATE_CACHE can name a folder with more room; the order 'shuffled' needs none",
            ) from error

    def _forget(self, needed: int) -> None:
        """Drop the blocks of windows that are well behind, unless a later window shares them."""
        while len(self._windows) > KEPT_WINDOWS + needed + 1:
            behind = self._windows.pop(next(iter(self._windows)))
            for block in behind.keys() - {b for blocks in self._windows.values() for b in blocks}:
                behind[block].result()
                self._file(block).unlink(missing_ok=True)

    def _start(self, block: int) -> int:
        first = block * self.order.block_samples
        return int(self._ends_N[first - 1]) if first else 0

    def _file(self, block: int) -> Path:
        return self.folder / f"{block:09d}"


def _drop(pool: ThreadPoolExecutor, folder: Path, owner: int) -> None:
    """Drop the files, without a wait: the garbage collector may call this while its thread holds a lock of `threading`.

    A block that is still being fetched finds its folder under this name no more, so nothing is left of it either.
    """
    if os.getpid() == owner:  # a worker is a copy, and leaves the files alone
        pool.shutdown(wait=False, cancel_futures=True)
        gone = folder.with_suffix(".gone")
        with suppress(OSError):  # it is gone already
            folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
