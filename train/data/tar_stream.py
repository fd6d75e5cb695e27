"""Batches of tars that have no index, read from their first byte to their last, as webdataset reads them.

For sources that allow no random reads, or are read only once. A few thousand neighbours are shuffled among each other,
not the whole set. To start an epoch at a later step, all samples before it are read. A dataset with an index
(`curate build` from a source `shards`) has neither limit.
"""

# B images of a batch, T side of an image in pixels

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from curate.errors import DataError, RecipeError, require
from curate.io.tars.scan import find_tars
from curate.rows.chance import chance
from train.augment.chance import fingerprint, of_keys
from train.augment.views import CropFrom, ViewPipeline, view_pipeline
from train.data.batch import Batch
from train.data.tar_samples import StreamSample, read_samples
from train.data.text_columns import Texts
from train.data.workers import Workers

BUFFER_SAMPLES = 4096
EPOCH_BITS = 48  # a place of a run is told by the epoch and the place in it: nobody knows how long epochs are


class _StreamPart(NamedTuple):
    data: list[bytes]
    chances: np.ndarray
    epoch: int


@dataclass(frozen=True)
class _StreamStep:
    samples: list[StreamSample]
    epoch: int
    first: int  # place in the epoch
    chances: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, start: int = 0, stop: int | None = None) -> _StreamPart:
        return _StreamPart([s.data for s in self.samples[start:stop]], self.chances[start:stop], self.epoch)


@dataclass(frozen=True)
class _StreamTexts:
    keys: Texts
    captions: Texts


class Stream:
    """Read tars in batches. The same batches for any number of workers, as `Loader`'s.

    Args:
        tars: a tar, a folder of tars, a pattern such as `s3://bucket/{000..099}.tar`, or several of these.
        batch_size: samples a step.
        image_size: T, in pixels.
        seed: of the order and the crops.
        augment: random resized crops and flips; else the middle of each image.
        workers: processes that decode; with 0, the caller does. One thread reads.
        buffer_samples: so many samples are shuffled among each other; 0 keeps the order of tars and samples.
        rank: takes every `world_size`-th tar, and gives up its turns when it has no more: ranks take as many steps as
            their tars hold, so train by a number of samples, over `epochs`.
        world_size: how many ranks there are; at most as many as tars.
        crop_from: as for `Loader`; squares are always 8/7 of the image size.
        min_area: smallest share of the image that a random crop may take.
        max_broken_fraction: share of the samples so far, beyond the first 1,000, that may be unreadable.
        device: where the batches go.

    A sample is an image, with its `.cls` (a number) and `.txt` where it has them. `left_out` counts: samples without an
    image; images after the first of a sample (`a.0.jpg` and `a.1.jpg` are one sample to webdataset); samples whose key
    came before in their tar, because their members stand apart; labels that are no number and texts that are not UTF-8
    or over 1 MiB (their samples have none); tars with bytes behind their end. `unreadable` lists the images that cannot
    be decoded; a neighbour in the batch replaces each. A batch without any readable image is empty.

    Raises:
        RecipeError: there are no such tars, or options that cannot be meant.
    """

    def __init__(
        self,
        tars: str | Sequence[str],
        *,
        batch_size: int,
        image_size: int,
        seed: int,
        augment: bool,
        workers: int,
        buffer_samples: int = BUFFER_SAMPLES,
        rank: int = 0,
        world_size: int = 1,
        crop_from: CropFrom = "auto",
        min_area: float = 0.25,
        max_broken_fraction: float = 0.01,
        device: str | torch.device = "cpu",
    ) -> None:
        require(batch_size >= 1, "batch_size", batch_size, "1 or more")
        require(workers >= 0, "workers", workers, "0 or more")
        require(buffer_samples >= 0, "buffer_samples", buffer_samples, "0 or more")
        require(
            0 <= max_broken_fraction <= 1, "max_broken_fraction", max_broken_fraction, "a share, in [0, 1]"
        )
        paths = [tars] if isinstance(tars, str) else tars
        all_tars = sorted({tar for path in paths for tar in find_tars(path)})
        require(bool(all_tars), "tars", ", ".join(paths) or "nothing", "tars, a folder of them or a pattern")
        if len(all_tars) < world_size or not 0 <= rank < world_size:
            raise RecipeError(
                f"rank {rank} of {world_size}, {len(all_tars)} tars at {', '.join(paths)}",
                hint="each rank needs a tar of its own",
            )
        self.tars = all_tars[rank::world_size]
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.buffer_samples = buffer_samples
        self.max_broken_fraction = max_broken_fraction
        self.device = torch.device(device)
        self.pipeline: ViewPipeline = view_pipeline(
            image_size, augment=augment, min_area=min_area, crop_from=crop_from
        )
        self.unreadable: dict[str, str] = {}  # key -> reason
        self.left_out: Counter[str] = Counter()
        self._seen = 0

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch; the last may be smaller.

        Args:
            epoch: decides order and crops.
            start_step: the first batch to yield; the samples before it are read and not decoded.

        Raises:
            DataError: a tar cannot be read, or too many samples cannot be.
        """
        shape = (self.batch_size, *self.pipeline.shape)
        workers: Workers[_StreamStep] = Workers(_Fill(self.pipeline), self.workers, shape)
        with closing(workers), closing(workers.run(self._steps(epoch, start_step))) as filled:
            for step, images, unreadable in filled:
                yield self._batch(step, images, unreadable)

    def _steps(self, epoch: int, start: int) -> Iterator[_StreamStep]:
        samples = self._samples(epoch)
        number = 0
        while taken := list(islice(samples, self.batch_size)):
            if number >= start:
                keys = pa.chunked_array([[s.key for s in taken]], pa.string())
                yield _StreamStep(taken, epoch, number * self.batch_size, of_keys(keys, self.seed))
            number += 1

    def _samples(self, epoch: int) -> Iterator[StreamSample]:
        tars = self.tars
        if not self.buffer_samples:
            return read_samples(tars, self.left_out)
        import webdataset

        tars = sorted(tars, key=lambda tar: (chance(tar, self.seed, f"stream/{epoch}"), tar))
        seed = chance(str(epoch), self.seed, "stream")
        buffer = webdataset.detshuffle(self.buffer_samples, self.buffer_samples, seed=seed, epoch=-1)
        return buffer.run(read_samples(tars, self.left_out))

    def _batch(self, step: _StreamStep, images: np.ndarray, unreadable: dict[int, str]) -> Batch:
        self._note(step, unreadable)
        good = [i for i in range(len(step)) if i not in unreadable]
        # The next readable sample of the batch, or else the last before it, replaces an unreadable one.
        places_B = range(len(step) if good else 0)
        which = np.array([next((j for j in good if j >= i), good[-1]) for i in places_B], np.int64)
        chances_B = step.chances[which]
        pixels = torch.from_numpy(images[which]).to(self.device)
        samples = [step.samples[i] for i in which.tolist()]
        texts = _StreamTexts(
            *(
                Texts(pa.chunked_array([[getattr(s, n) for s in samples]], pa.string()))
                for n in ("key", "caption")
            )
        )
        return Batch(
            self.pipeline.finish(pixels, chances_B, step.epoch),
            torch.tensor([s.label for s in samples], dtype=torch.int64).to(self.device),
            np.array(places_B),
            chances_B,
            step.epoch,
            fingerprint(chances_B, (step.epoch << EPOCH_BITS) + step.first + np.array(places_B, np.int64)),
            texts,
        )

    def _note(self, step: _StreamStep, unreadable: dict[int, str]) -> None:
        self._seen += len(step)
        self.unreadable |= {step.samples[i].key: reason for i, reason in unreadable.items()}
        if len(self.unreadable) > self.max_broken_fraction * max(self._seen, 1000):
            key = min(self.unreadable)
            raise DataError(
                f"{self.tars[0]} and others: {len(self.unreadable)} of {self._seen} images cannot be read so far, "
                f"such as {key}: {self.unreadable[key]}",
                hint="`curate verify` says which",
            )


@dataclass(frozen=True)
class _Fill:
    pipeline: ViewPipeline

    def __call__(self, made_B: np.ndarray, part: _StreamPart) -> dict[int, str]:
        return self.pipeline.fill(made_B, part.data, part.chances, part.epoch)
