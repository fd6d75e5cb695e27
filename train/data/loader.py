"""Batches of datasets, read by byte ranges; keys, seed and epoch alone decide their order and crops.

They are equal bit for bit for any number of workers and ranks, in memory or not, from shards or from an overlay;
and a run can be entered at any step, which is what makes a resumed one exact.
"""

# B samples of a batch, V views of each, L places of an epoch, N samples, S side of a square that is kept, T side of
# the result, in pixels

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError, require, require_one_of
from curate.io.paths import StoreError
from train.augment import chance
from train.augment.chance import Chances, Passes
from train.augment.upload import upload
from train.augment.views import CropFrom, Geometry, Squares, geometry
from train.data.batch_sampler import Last, Part, Step, Steps
from train.data.block_prefetch import Spool
from train.data.epoch_order import BLOCK_SAMPLES, WINDOW_BLOCKS, Blocks, OrderName, Straight, order_of
from train.data.samples import Samples, Union, samples_of
from train.data.text_columns import Texts
from train.data.unreadable import Broken
from train.data.workers import Workers

Cache = Literal["auto", "device", "memory", "none"]

CACHE_BYTES = 2_000_000_000  # what "auto" may keep in the host's memory
CACHE_SHARE = 0.25  # and of a GPU's, of what is free
MAX_WORKERS = 1024
CACHE_CHUNK = 512  # samples decoded at a time when the cache is filled


class Said(Protocol):
    """What is said of samples, by row."""

    @property
    def keys(self) -> Texts: ...

    @property
    def captions(self) -> Texts: ...


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Args:
        views: V of B3TT, uint8, 0..255.
        labels: B, int64; -1 for none.
        rows: B, whole numbers: the samples' numbers in the loader.
        chances: B, the samples' chances: what is decided about a sample by chance follows from them and the passes.
        passes: how often each was seen before.
        epoch: the epoch it belongs to.
        fingerprint: of who stands where in the run; see `chances.fingerprint`.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    rows: np.ndarray
    chances: Chances
    passes: Passes
    epoch: int
    fingerprint: int
    _said: Said = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> Tensor:
        """The first view, or the only one: B3TT, uint8, 0..255."""
        return self.views[0]

    @property
    def keys(self) -> list[str]:
        """The samples' keys."""
        return self._said.keys.take(self.rows)

    @property
    def captions(self) -> list[str | None]:
        """The samples' captions; None where there is none."""
        return self._said.captions.take(self.rows)


@dataclass(frozen=True)
class _Fill:
    """Read and decode rows; return the reason of each that cannot be. This runs in a worker."""

    samples: Samples | Union
    read: Callable[[np.ndarray], list[bytes | DataError]]
    geometry: Geometry

    def __call__(self, made_B: np.ndarray, part: Part) -> dict[int, str]:
        answers = self.read(part.rows)
        for one in answers:
            if isinstance(one, StoreError):  # not the image's fault: a run stops here and goes on later
                raise one
        broken = {i: one.message for i, one in enumerate(answers) if isinstance(one, DataError)}
        data = [b"" if isinstance(one, DataError) else one for one in answers]
        return self.geometry.fill(made_B, data, self.samples.chances_N[part.rows], part.passes) | broken


class Loader:
    """Read datasets in batches.

    Args:
        datasets: with shards or overlays; one, or several to mix by `weights`.
        batch_size: samples a step, over all ranks.
        image_size: T, in pixels.
        seed: of the order and the crops.
        augment: random resized crops and flips; else the middle of each image.
        workers: processes that read and decode; with 0, the caller does.
        weights: of several datasets: each epoch has exactly so many of each, drawn in passes over it.
        epoch_samples: places of an epoch of several datasets; as many as they have samples by default.
        rank: which part of each batch this process takes: every `ranks`-th sample, so all ranks take the same
            number of steps, and together the batches that one process alone would see.
        ranks: how many processes share each batch.
        order: "shuffled" anew each epoch over the whole set; "blocks" keeps neighbours near each other, for
            storage that reads slowly here and there (see `orders.Blocks`): in a store, blocks are fetched whole
            and ahead; or the "manifest"'s.
        block_samples: rows of a block.
        window_blocks: blocks that are shuffled among each other.
        last: of an epoch's last samples, where they do not fill a batch: "keep" them as a smaller batch (a rank's
            part may then be one smaller than another's, or empty), "drop" them, or "pad" with its first ones.
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

    An image that cannot be read is noted in `broken` and, in a shuffled order, replaced by the next one of the
    epoch, so that a batch keeps its size; in the manifest's order it is left out, so that none counts twice.

    Raises:
        DataError: no rows, or labels that are missing or out of range.
        RecipeError: options that contradict each other, or cannot be meant.
    """

    def __init__(
        self,
        datasets: Dataset | Sequence[Dataset],
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        augment: bool,
        workers: int,
        weights: Sequence[float] | None = None,
        epoch_samples: int | None = None,
        rank: int = 0,
        ranks: int = 1,
        order: OrderName = "shuffled",
        block_samples: int = BLOCK_SAMPLES,
        window_blocks: int = WINDOW_BLOCKS,
        last: Last = "keep",
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
        self.datasets = [datasets] if isinstance(datasets, Dataset) else list(datasets)
        if not all(isinstance(one, Dataset) for one in self.datasets):
            raise RecipeError(
                f"{datasets!r} is no dataset", hint="`curate.datasets.dataset.open_dataset` opens one"
            )
        self.batch_size = batch_size
        self.workers = workers
        self.device = torch.device(device)
        self.samples = samples_of(self.datasets, split, seed=seed, need_labels=need_labels)
        self.labels_N = self.samples.labels_N
        self.broken = Broken(str(self.dataset.path), self.samples.keys, max_broken_fraction)
        self._replaces = order != "manifest"
        self.order = order_of(
            [part.chances_N for part in self.samples.parts],
            order,
            weights=weights,
            epoch_samples=epoch_samples,
            block_samples=block_samples,
            window_blocks=window_blocks,
        )
        self.steps = Steps(self.order, batch_size, rank=rank, ranks=ranks, last=last)
        self.geometry = geometry(
            image_size,
            augment=augment,
            min_area=min_area,
            crop_from=crop_from,
            largest=self.samples.largest,
            views=views,
        )
        self.cache = self._cache(cache)
        self._spool: Spool | None = None
        if isinstance(self.order, Blocks) and isinstance(self.samples, Samples) and self.samples.remote:
            self._spool = Spool(self.samples, self.order)
        self._fill = _Fill(self.samples, (self._spool or self.samples).read, self.geometry)
        self._squares: Tensor | None = None  # NSS3, uint8
        self._idle: Workers[Step] | None = None  # kept from one epoch to the next
        self._all: weakref.WeakSet[Workers] = weakref.WeakSet()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    @property
    def dataset(self) -> Dataset:
        """The first dataset, or the only one."""
        return self.datasets[0]

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.steps.per_epoch

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
            DataError: more samples are broken than `max_broken_fraction` allows, or a store does not answer.
            MissingError: a worker was killed.
        """
        yield from self._batches(self.steps.epoch(epoch, start_step))

    def batches(self, first_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of a run from a step on, epoch after epoch without a pause between them, for ever.

        Raises:
            DataError: as `epoch`.
        """
        yield from self._batches(self.steps.run(first_step))

    def prepare(self, report: Callable[[int], None] | None = None) -> None:
        """Fill the cache, if there is to be one and it is not filled; `epoch` does so too.

        Args:
            report: told how many samples were decoded since it was last told.

        Raises:
            DataError: more samples are broken than `max_broken_fraction` allows.
        """
        if self.cache == "none" or self._squares is not None:
            return
        place = self.device if self.cache == "device" else torch.device("cpu")
        squares_NSS3 = torch.empty(len(self), *self.geometry.shape, dtype=torch.uint8, device=place)
        in_turn = Steps(Straight(len(self)), min(CACHE_CHUNK, len(self)), rank=0, ranks=1, last="keep")
        workers = self._new_workers(in_turn.part_size)
        with closing(workers), closing(workers.run(in_turn.epoch(0))) as filled:
            for step, images, broken in filled:
                rows = step.part().rows
                self.broken.note({int(rows[i]): reason for i, reason in broken.items()})
                squares_NSS3[rows[0] : rows[-1] + 1] = upload(images, place)
                if report:
                    report(len(images))
        self._squares = squares_NSS3

    def close(self) -> None:
        """End the workers; the next epoch starts them again."""
        if self._idle:
            self._idle.close()
        self._idle = None

    def _batches(self, steps: Iterable[Step]) -> Iterator[Batch]:
        self.prepare()
        if self._squares is not None:
            yield from (self._from_squares(self._squares, step) for step in steps)
            return
        workers, self._idle = self._idle or self._new_workers(self.steps.part_size), None
        try:
            ahead = self._spool.ahead(steps) if self._spool else steps
            with closing(workers.run(ahead)) as filled:
                for step, images, broken in filled:
                    rows_B, kept_B = self._repaired(step, broken, images)
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

    def _from_squares(self, squares_NSS3: Tensor, step: Step) -> Batch:
        broken = {}
        if len(self.broken):
            rows = step.part().rows.tolist()
            broken = {i: self.broken.by_row[row] for i, row in enumerate(rows) if row in self.broken}
        rows_B, kept_B = self._repaired(step, broken, None)
        images_BSS3 = squares_NSS3[upload(rows_B.astype(np.int64), squares_NSS3.device)]
        return self._batch(step, rows_B, kept_B, images_BSS3)

    def _batch(self, step: Step, rows_B: np.ndarray, kept_B: np.ndarray | None, images: Tensor) -> Batch:
        """Turn what workers made into a batch, less what is not kept."""
        places_B, passes = step.places, step.part().passes
        if kept_B is not None:
            rows_B, places_B, images = rows_B[kept_B], places_B[kept_B], images[torch.from_numpy(kept_B)]
        chances_B = self.samples.chances_N[rows_B]
        views = self.geometry.finish(upload(images, self.device), chances_B, passes)
        labels_B = upload(self.labels_N[rows_B].astype(np.int64), self.device)
        seen = chance.fingerprint(chances_B, step.epoch * len(self.order) + places_B)
        return Batch(views, labels_B, rows_B, chances_B, passes, step.epoch, seen, self.samples)

    def _repaired(
        self, step: Step, broken: Mapping[int, str], images: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Replace broken samples, or leave them out: the rows, and which to keep (None: all)."""
        rows_B = step.part().rows
        if not broken:
            return rows_B, None
        self.broken.note({int(rows_B[i]): reason for i, reason in broken.items()})
        if not self._replaces:
            return rows_B, ~np.isin(np.arange(len(step)), list(broken))
        rows_B = rows_B.copy()
        for i in broken:
            rows_B[i] = self._next_readable(step, i, None if images is None else images[i : i + 1])
        return rows_B, None

    def _next_readable(self, step: Step, i: int, image: np.ndarray | None) -> int:
        """Return the row that stands in for a broken one: the next of the epoch that can be read."""
        order_L = step.turn.rows
        for ahead in range(1, len(order_L)):
            row = int(order_L[(step.places[i] + ahead) % len(order_L)])
            if row in self.broken:
                continue
            if image is None:
                return row
            broken = self._fill(image, Part(np.array([row]), step.part(i, i + 1).passes))
            if not broken:
                return row
            self.broken.note({row: broken[0]})
        raise DataError(f"{self.dataset.path}: no image can be read", hint="is this the right pool?")

    def _new_workers(self, samples: int) -> Workers[Step]:
        workers: Workers[Step] = Workers(self._fill, self.workers, (samples, *self.geometry.shape))
        self._all.add(workers)
        return workers

    def _cache(self, wanted: Cache) -> Literal["device", "memory", "none"]:
        squares = isinstance(self.geometry, Squares)
        square_bytes = math.prod(self.geometry.shape)
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
