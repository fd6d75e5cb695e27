"""Batches of a dataset, read by byte ranges. Their order and crops follow from keys, seed and epoch alone.

They are equal bit for bit for any number of workers and ranks, in memory or not, from shards or from an overlay. A run
can start at any step, so a run that resumes is exact.
"""

# B samples of a batch, V views of each, L places of an epoch, N samples, S side of a square that is kept, T side of
# the result, in pixels

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError, require, require_one_of
from curate.io.stores import StoreError
from train.augment import chance
from train.augment.upload import upload
from train.augment.views import CenterSquares, CropFrom, ViewPipeline, view_pipeline
from train.data.batch import Batch
from train.data.batch_sampler import BatchRows, BatchSampler, RowsOfEpoch
from train.data.block_prefetch import BlockPrefetch
from train.data.epoch_order import BlockOrder, ManifestOrder, OrderName, order_of
from train.data.samples import Samples
from train.data.unreadable import Unreadable
from train.data.workers import Workers

Cache = Literal["auto", "device", "memory", "none"]

CACHE_BYTES = 2_000_000_000  # what "auto" may keep in the host's memory
CACHE_SHARE = 0.25  # and of a GPU's, of what is free
MAX_WORKERS = 1024
CACHE_CHUNK = 512  # samples decoded at a time when the cache is filled


@dataclass(frozen=True)
class _Fill:
    """Read and decode rows; return the reason of each that cannot be. This runs in a worker."""

    samples: Samples
    read: Callable[[np.ndarray], list[bytes | DataError]]
    pipeline: ViewPipeline

    def __call__(self, made_B: np.ndarray, part: RowsOfEpoch) -> dict[int, str]:
        answers = self.read(part.rows)
        for answer in answers:
            if isinstance(answer, StoreError):  # not the image's fault: a run stops here and goes on later
                raise answer
        unreadable = {i: answer.message for i, answer in enumerate(answers) if isinstance(answer, DataError)}
        data = [b"" if isinstance(answer, DataError) else answer for answer in answers]
        return self.pipeline.fill(made_B, data, self.samples.chances_N[part.rows], part.epoch) | unreadable


class Loader:
    """Read a dataset in batches.

    Args:
        dataset: with shards or overlays.
        batch_size: samples a step, over all ranks.
        image_size: T, in pixels.
        seed: of the order and the crops.
        augment: random resized crops and flips; else the middle of each image.
        workers: processes that read and decode; with 0, the caller does.
        rank: which part of each batch this process takes: every `world_size`-th sample. So all ranks take the same
            number of steps, and together they see the batches that one process alone would see.
        world_size: how many processes share each batch.
        order: "shuffled" anew each epoch over the whole set; "blocks" keeps neighbours near each other, for
            storage with slow random reads (see `epoch_order.BlockOrder`); or the "manifest"'s.
        drop_last: drop an epoch's last samples where they do not fill a batch; else they are a smaller batch (a
            rank's part may then be one smaller than another's, or empty).
        max_broken_fraction: share of the samples that may be unreadable before it is an error.
        split: only the rows of this split; "train" means all that are not held out (val, test).
        cache: keep the decoded squares, on the "device" or in "memory" of the host; "auto" does on the device
            where they take less than a quarter of a GPU's free memory, or of the host's 2 GB. It changes the speed
            and nothing else.
        crop_from: the middle "square", at 8/7 of the image size, or the whole "photo"; "auto" takes squares up to
            96 px. Only squares can be cached.
        min_area: smallest share of the image that a random crop may take.
        views: V: random crops of each image, which is read and decoded once for all.
        need_labels: refuse rows without one.
        device: where the batches go; squares are kept and cut there.

    `unreadable` lists the images that cannot be read. In a random order, the next image of the epoch replaces such
    an image, so a batch keeps its size. In the manifest's order it is left out, so no image counts twice.

    Raises:
        DataError: no rows, or labels that are missing or out of range.
        RecipeError: options that contradict each other, or cannot be meant.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        augment: bool,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
        order: OrderName = "shuffled",
        drop_last: bool = False,
        max_broken_fraction: float = 0.01,
        split: str | None = None,
        cache: Cache = "auto",
        crop_from: CropFrom = "auto",
        min_area: float = 0.25,
        views: int = 1,
        need_labels: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        require(0 <= workers <= MAX_WORKERS, "workers", workers, f"in 0..{MAX_WORKERS}")
        require_one_of(Cache, "cache", cache)
        if not isinstance(dataset, Dataset):
            raise RecipeError(f"{dataset!r} is no dataset", hint="`curate.open_dataset` opens one")
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = workers
        self.device = torch.device(device)
        self.samples = Samples(dataset, split, seed=seed, need_labels=need_labels)
        self.labels_N = self.samples.labels_N
        self.unreadable = Unreadable(str(dataset.path), self.samples.keys, max_broken_fraction)
        self._replaces = order != "manifest"
        self.order = order_of(self.samples.chances_N, order)
        self.sampler = BatchSampler(
            self.order, batch_size, rank=rank, world_size=world_size, drop_last=drop_last
        )
        self.pipeline = view_pipeline(
            image_size,
            augment=augment,
            min_area=min_area,
            crop_from=crop_from,
            largest=self.samples.largest,
            views=views,
        )
        self.cache = self._cache(cache)
        self._prefetch: BlockPrefetch | None = None
        if isinstance(self.order, BlockOrder) and self.samples.remote:
            self._prefetch = BlockPrefetch(self.samples, self.order)
        self._fill = _Fill(self.samples, (self._prefetch or self.samples).read, self.pipeline)
        self._squares: Tensor | None = None  # NSS3, uint8
        self._idle: Workers[BatchRows] | None = None  # kept from one epoch to the next
        self._all: weakref.WeakSet[Workers] = weakref.WeakSet()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.sampler.steps_per_epoch

    @property
    def processes(self) -> list[BaseProcess]:
        """The workers that run now."""
        return [process for workers in self._all for process in workers.processes]

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch.

        Args:
            epoch: decides order and crops.
            start_step: the first batch to yield; the others are not read.

        Raises:
            DataError: more samples are unreadable than `max_broken_fraction` allows, or a store does not answer.
            MissingError: a worker was killed.
        """
        yield from self._batches(self.sampler.epoch(epoch, start_step))

    def batches(self, first_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of a run from a step on, epoch after epoch without a pause between them, for ever.

        Raises:
            DataError: as `epoch`.
        """
        yield from self._batches(self.sampler.run(first_step))

    def prepare(self, report: Callable[[int], None] | None = None) -> None:
        """Fill the cache, if there is to be one and it is not filled; `epoch` does so too.

        Args:
            report: told how many samples were decoded since it was last told.

        Raises:
            DataError: more samples are unreadable than `max_broken_fraction` allows.
        """
        if self.cache == "none" or self._squares is not None:
            return
        place = self.device if self.cache == "device" else torch.device("cpu")
        squares_NSS3 = torch.empty(len(self), *self.pipeline.shape, dtype=torch.uint8, device=place)
        in_turn = BatchSampler(ManifestOrder(len(self)), min(CACHE_CHUNK, len(self)))
        workers = self._new_workers(in_turn.rank_size)
        with closing(workers), closing(workers.run(in_turn.epoch(0))) as filled:
            for step, images, unreadable in filled:
                rows = step.part().rows
                self.unreadable.note({int(rows[i]): reason for i, reason in unreadable.items()})
                squares_NSS3[rows[0] : rows[-1] + 1] = upload(images, place)
                if report:
                    report(len(images))
        self._squares = squares_NSS3

    def close(self) -> None:
        """End the workers; the next epoch starts them again."""
        if self._idle:
            self._idle.close()
        self._idle = None

    def _batches(self, steps: Iterable[BatchRows]) -> Iterator[Batch]:
        self.prepare()
        if self._squares is not None:
            yield from (self._from_squares(self._squares, step) for step in steps)
            return
        workers, self._idle = self._idle or self._new_workers(self.sampler.rank_size), None
        try:
            ahead = self._prefetch.ahead(steps) if self._prefetch else steps
            with closing(workers.run(ahead)) as filled:
                for step, images, unreadable in filled:
                    rows_B, kept_B = self._readable(step, unreadable, images)
                    yield self._batch(step, rows_B, kept_B, self._taken(images))
        finally:
            if self._idle is None and len(workers.processes) == self.workers:
                self._idle = workers
            else:  # one was killed, or another epoch of this loader ended first
                workers.close()

    def _taken(self, images: np.ndarray) -> Tensor:
        """Copy images out of memory that workers will use again, to the device."""
        if self.device.type == "cuda":  # by way of a pinned copy, which torch keeps until the device has it
            return upload(images, self.device)
        # numpy's copy asks for huge pages, and takes half the time of torch's clone.
        return torch.from_numpy(images.copy())

    def _from_squares(self, squares_NSS3: Tensor, step: BatchRows) -> Batch:
        unreadable = self.unreadable.among(step.part().rows)
        rows_B, kept_B = self._readable(step, unreadable, None)
        images_BSS3 = squares_NSS3[upload(rows_B.astype(np.int64), squares_NSS3.device)]
        return self._batch(step, rows_B, kept_B, images_BSS3)

    def _batch(self, step: BatchRows, rows_B: np.ndarray, kept_B: np.ndarray | None, images: Tensor) -> Batch:
        """Turn what workers made into a batch, less what is not kept."""
        places_B = step.places
        if kept_B is not None:
            rows_B, places_B, images = rows_B[kept_B], places_B[kept_B], images[torch.from_numpy(kept_B)]
        chances_B = self.samples.chances_N[rows_B]
        views = self.pipeline.finish(upload(images, self.device), chances_B, step.epoch)
        labels_B = upload(self.labels_N[rows_B].astype(np.int64), self.device)
        fingerprint = chance.fingerprint(chances_B, step.epoch * len(self.order) + places_B)
        return Batch(views, labels_B, rows_B, chances_B, step.epoch, fingerprint, self.samples)

    def _readable(
        self, step: BatchRows, reasons: Mapping[int, str], images: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Replace unreadable samples, or leave them out: return the rows, and which to keep (None: all)."""
        rows_B = step.part().rows
        if not reasons:
            return rows_B, None
        self.unreadable.note({int(rows_B[i]): reason for i, reason in reasons.items()})
        if not self._replaces:
            return rows_B, ~np.isin(np.arange(len(step)), list(reasons))
        return self.unreadable.replaced(step, reasons, images, self._fill), None

    def _new_workers(self, samples: int) -> Workers[BatchRows]:
        workers: Workers[BatchRows] = Workers(self._fill, self.workers, (samples, *self.pipeline.shape))
        self._all.add(workers)
        return workers

    def _cache(self, wanted: Cache) -> Literal["device", "memory", "none"]:
        squares = isinstance(self.pipeline, CenterSquares)
        square_bytes = math.prod(self.pipeline.shape)
        if wanted in ("device", "memory") and not squares:
            raise RecipeError(
                f"cache {wanted!r} with crops from whole photographs",
                hint="crop_from 'square' keeps the middle square of each image, at 8/7 of the image size",
            )
        if wanted == "auto":
            return "device" if squares and len(self) * square_bytes <= _cache_bytes(self.device) else "none"
        return wanted


def _cache_bytes(device: torch.device) -> int:
    """Return what "auto" may keep on a device."""
    if device.type != "cuda":
        return CACHE_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * CACHE_SHARE)
