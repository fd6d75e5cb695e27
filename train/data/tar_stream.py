"""Batches of tars that have no index, read from their first byte to their last, as webdataset reads them.

For sources that cannot be entered in the middle, or are read only once. Who comes when is chance among a few
thousand neighbours, not over the whole set; to enter an epoch at a step, all before it is read. A dataset with an
index (`curate build` from a source `shards`) has neither limit.
"""

# B images of a batch, T side of an image in pixels

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from curate.errors import DataError, RecipeError, require
from curate.io.images import EXTENSIONS
from curate.io.paths import place
from curate.io.tars.archive import BLOCK
from curate.io.tars.fields import MAX_FIELD_BYTES, NOT_UTF8, TOO_LONG
from curate.io.tars.headers import is_header
from curate.io.tars.scan import find_tars
from curate.rows.chance import chance
from train.augment.chance import fingerprint, of_keys
from train.augment.views import CropFrom, Geometry, geometry
from train.data.loader import Batch
from train.data.text_columns import Texts
from train.data.workers import Workers

BUFFER_SAMPLES = 4096
MAX_LABEL_DIGITS = 18  # what a label of 64 bits holds
COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")  # gzip, bzip2, xz: the first two bytes
EPOCH_BITS = 48  # a place of a run is told by the epoch and the place in it: nobody knows how long epochs are


class Sample(NamedTuple):
    """A sample of a stream; -1 for no label."""

    key: str
    data: bytes
    label: int
    caption: str | None


class _Part(NamedTuple):
    data: list[bytes]
    chances: np.ndarray
    epoch: int


@dataclass(frozen=True)
class _Step:
    samples: list[Sample]
    epoch: int
    first: int  # place in the epoch
    chances: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    def part(self, start: int = 0, stop: int | None = None) -> _Part:
        return _Part([s.data for s in self.samples[start:stop]], self.chances[start:stop], self.epoch)


@dataclass(frozen=True)
class _Said:
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
        rank: takes every `ranks`-th tar, and gives up its turns when it has no more: ranks take as many steps as
            their tars hold, so train by a number of samples, over `epochs`.
        ranks: how many there are; at most as many as tars.
        crop_from: as for `Loader`; squares are always 8/7 of the image size.
        min_area: smallest share of the image that a random crop may take.
        max_broken_fraction: share of the samples so far, beyond the first 1,000, that may be unreadable.
        device: where the batches go.

    A sample is an image with `.cls` (a number) and `.txt` beside it, where there are. `left_out` counts samples
    without an image, and images after the first of a sample (`a.0.jpg` and `a.1.jpg` are one sample to webdataset);
    samples whose key came before in their tar, as those have whose members stand apart; labels that are no number and
    texts that are not UTF-8 or over 1 MiB, whose samples have none; and tars with bytes behind their end.
    One that cannot be decoded is noted in `broken` and its place taken by its neighbour in the batch;
    a batch of which none can be is empty.

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
        ranks: int = 1,
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
        found = sorted({tar for path in paths for tar in find_tars(path)})
        require(bool(found), "tars", ", ".join(paths) or "nothing", "tars, a folder of them or a pattern")
        if len(found) < ranks or not 0 <= rank < ranks:
            raise RecipeError(
                f"rank {rank} of {ranks}, {len(found)} tars at {', '.join(paths)}",
                hint="each rank needs a tar of its own",
            )
        self.tars = found[rank::ranks]
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.buffer_samples = buffer_samples
        self.max_broken_fraction = max_broken_fraction
        self.device = torch.device(device)
        self.geometry: Geometry = geometry(
            image_size, augment=augment, min_area=min_area, crop_from=crop_from
        )
        self.broken: dict[str, str] = {}  # key -> reason
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
        shape = (self.batch_size, *self.geometry.shape)
        workers: Workers[_Step] = Workers(_Fill(self.geometry), self.workers, shape)
        with closing(workers), closing(workers.run(self._steps(epoch, start_step))) as filled:
            for step, images, broken in filled:
                yield self._batch(step, images, broken)

    def _steps(self, epoch: int, start: int) -> Iterator[_Step]:
        samples = self._samples(epoch)
        number = 0
        while taken := list(islice(samples, self.batch_size)):
            if number >= start:
                keys = pa.chunked_array([[s.key for s in taken]], pa.string())
                yield _Step(taken, epoch, number * self.batch_size, of_keys(keys, self.seed))
            number += 1

    def _samples(self, epoch: int) -> Iterator[Sample]:
        tars = self.tars
        if not self.buffer_samples:
            return _read(tars, self.left_out)
        import webdataset

        tars = sorted(tars, key=lambda tar: (chance(tar, self.seed, f"stream/{epoch}"), tar))
        seed = chance(str(epoch), self.seed, "stream")
        buffer = webdataset.detshuffle(self.buffer_samples, self.buffer_samples, seed=seed, epoch=-1)
        return buffer.run(_read(tars, self.left_out))

    def _batch(self, step: _Step, images: np.ndarray, broken: dict[int, str]) -> Batch:
        self._note(step, broken)
        good = [i for i in range(len(step)) if i not in broken]
        # In the place of a broken one comes the next of its batch, or the last before it; where all are, nobody does.
        places = range(len(step) if good else 0)
        which = np.array([next((j for j in good if j >= i), good[-1]) for i in places], np.int64)
        chances_B = step.chances[which]
        pixels = torch.from_numpy(images[which]).to(self.device)
        samples = [step.samples[i] for i in which.tolist()]
        said = _Said(
            *(
                Texts(pa.chunked_array([[getattr(s, n) for s in samples]], pa.string()))
                for n in ("key", "caption")
            )
        )
        return Batch(
            self.geometry.finish(pixels, chances_B, step.epoch),
            torch.tensor([s.label for s in samples], dtype=torch.int64).to(self.device),
            np.array(places),
            chances_B,
            step.epoch,
            step.epoch,
            fingerprint(chances_B, (step.epoch << EPOCH_BITS) + step.first + np.array(places, np.int64)),
            said,
        )

    def _note(self, step: _Step, broken: dict[int, str]) -> None:
        self._seen += len(step)
        self.broken |= {step.samples[i].key: reason for i, reason in broken.items()}
        if len(self.broken) > self.max_broken_fraction * max(self._seen, 1000):
            key = min(self.broken)
            raise DataError(
                f"{self.tars[0]} and others: {len(self.broken)} of {self._seen} images cannot be read so far, "
                f"such as {key}: {self.broken[key]}",
                hint="`curate verify` says which",
            )


@dataclass(frozen=True)
class _Fill:
    geometry: Geometry

    def __call__(self, made_B: np.ndarray, part: _Part) -> dict[int, str]:
        return self.geometry.fill(made_B, part.data, part.chances, part.epoch)


class _Tailed:
    """A stream that remembers its last block: a tar that ends in no zeros was cut, which readers do not notice.

    And what was read last, in which the end-of-archive marker stands when a reader stops.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.head = self.tail = self.last = b""

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.head = self.head or data[:2]
        self.tail = (self.tail + data[-BLOCK:])[-BLOCK:]
        self.last = data or self.last
        return data

    def goes_on(self) -> bool:
        """Read to the end; whether more members stand behind the marker that a reader stopped at."""
        blocks = [self.last[i : i + BLOCK] for i in range(0, len(self.last), BLOCK)]
        more = any(not any(a) and len(b) == BLOCK and is_header(b) for a, b in pairwise(blocks))
        while data := self.read(1 << 20):
            more = more or data.strip(b"\0") != b""
        return more


def _read(tars: Iterable[str], left_out: Counter[str]) -> Iterator[Sample]:
    """Yield the samples of tars, in their order."""
    from webdataset import tariterators

    for tar in tars:
        with place(tar).open("rb") as opened:
            stream = _Tailed(opened)
            try:
                members = tariterators.tar_file_expander([{"url": tar, "stream": stream}])
                keys: set[str] = set()
                for sample in tariterators.group_by_keys(members):
                    if sample["__key__"] in keys:
                        left_out["samples whose key came before in their tar"] += 1
                    keys.add(sample["__key__"])
                    if (found := _sample(sample, left_out)) is not None:
                        yield found
                goes_on = stream.goes_on()
            # tarfile's own errors and what it leaks on damaged archives; webdataset adds the stream to their words.
            except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
                said = str(error.args[0] if error.args else error).split(" @ ")[0]
                raise _unsound(tar, said) from error
        # What is compressed has an end of its own, and its reader has looked for it.
        if stream.head in COMPRESSED:
            continue
        if any(stream.tail) or not stream.tail:
            raise _unsound(tar, "it has no end-of-archive marker: it was cut")
        if goes_on:
            left_out["tars with bytes behind their end"] += 1


def _unsound(tar: str, why: object) -> DataError:
    return DataError(
        f"{tar}: cannot be read to its end ({why})", hint=f"`curate verify {tar}` says what is wrong with it"
    )


def _sample(fields: dict[str, Any], left_out: Counter[str]) -> Sample | None:
    images = [name for name in fields if name.rpartition(".")[2] in EXTENSIONS]
    if not images:
        left_out["samples without an image"] += 1
        return None
    if len(images) > 1:
        left_out["images after the first of a sample"] += len(images) - 1
    label = fields.get("cls", b"").strip()
    if label not in (b"", b"-1") and not (label.isdigit() and len(label) <= MAX_LABEL_DIGITS):
        left_out["labels that are no number"] += 1
        label = b""
    # A name that is not UTF-8 cannot be stored; it is told as it is printed.
    key = fields["__key__"].encode("utf-8", "backslashreplace").decode()
    return Sample(key, fields[images[0]], int(label or -1), _caption(fields.get("txt"), left_out))


def _caption(data: bytes | None, left_out: Counter[str]) -> str | None:
    if data is None:
        return None
    try:
        if len(data) <= MAX_FIELD_BYTES:
            return data.decode().removeprefix("\ufeff")
        left_out[f"texts {TOO_LONG}"] += 1
    except UnicodeDecodeError:
        left_out[f"texts {NOT_UTF8}"] += 1
    return None
