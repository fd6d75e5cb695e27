"""Batches of a dataset, read by byte ranges; keys, seed and epoch alone decide their order and crops.

They are equal bit for bit for any number of workers, in memory or not, from shards or from an overlay; and an
epoch can be entered at any step, which is what makes a resumed run exact.
"""

# B images of a batch, N samples of the loader, T side of an image in pixels

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from curate.datasets import Dataset
from curate.errors import DataError
from curate.images import BadImage
from train import chances
from train.geometries import Squares, geometry
from train.samples import labels_of, rows_of
from train.threads import in_order

Cache = Literal["auto", "memory", "none"]

CACHE_BYTES = 2_000_000_000  # what "auto" may keep
CHUNK = 128  # samples that a worker decodes at a time when the cache is filled
AHEAD = 3  # batches being read while one is used


@dataclass(frozen=True)
class Batch:
    """Some samples. Images that cannot be read are left out, so it may be smaller than the batch size."""

    images: Tensor  # B3TT, uint8, 0..255
    labels: Tensor  # B, int64; -1 for none
    keys: list[str]
    rows: np.ndarray  # B, int64: their places in `Loader.table`

    def __len__(self) -> int:
        return len(self.keys)


class _Part(NamedTuple):
    """What a worker makes of some rows."""

    rows: np.ndarray  # those that could be read
    content: Any  # what the geometry keeps of each, or the pixels cut from them
    broken: dict[int, str]  # row -> reason


class Loader:
    """Read a dataset in batches.

    Args:
        dataset: with shards or an overlay.
        batch_size: samples a step.
        image_size: T, in pixels.
        seed: of the order and the crops.
        augment: random resized crops and flips; else the middle of each image.
        workers: threads that read and decode; with 0, the caller's does. Threads, not processes: Pillow lets
            go of the interpreter while it decodes, and nothing is copied between them (3,100 images/s at 64
            px with two threads, 1,700 with two processes, on the same two busy cores).
        max_broken_fraction: share of the samples that may be unreadable before it is an error.
        drop_last: leave out the last samples of an epoch where they do not fill a batch.
        split: only the rows of this split; "train" means all that are not held out (val, test).
        cache: "memory" keeps the decoded images; "auto" does where they take less than 2 GB. It changes the
            speed and nothing else.
        shuffle: a new order each epoch; else the manifest's.
        min_area: smallest share of the image that a random crop may take.
        need_labels: refuse rows without one.
        device: where the batches go; squares are kept and cut there.

    Raises:
        DataError: no rows, or labels that are missing or out of range.
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
        max_broken_fraction: float = 0.01,
        drop_last: bool = False,
        split: str | None = None,
        cache: Cache = "auto",
        shuffle: bool = True,
        min_area: float = 0.25,
        need_labels: bool = True,
        device: str | torch.device = "cpu",
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.workers = workers
        self.max_broken_fraction = max_broken_fraction
        self.drop_last = drop_last
        self.shuffle = shuffle
        self.device = torch.device(device)
        self.table = rows_of(dataset, split)
        self.labels_N = labels_of(dataset, self.table, need_labels)
        self.broken: dict[str, str] = {}  # key -> reason, of every sample that could not be read so far
        self._keys = self.table["key"]
        self._chances_N = chances.of_keys(self._keys.to_pylist(), seed)
        self._geometry = geometry(image_size, augment=augment, min_area=min_area)
        self._reader = dataset.reader()
        self.cached = cache == "memory" or (cache == "auto" and self._cache_bytes() <= CACHE_BYTES)
        self._squares: Tensor | None = None  # NSS3, uint8: the cache where every image is kept as a square
        self._photos: list[Any] | None = None  # the cache where they differ in size
        self._known_broken: dict[int, str] = {}  # row -> reason, of the rows that a cache lacks

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.table)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def order(self, epoch: int) -> np.ndarray:
        """Return the rows in the order of an epoch."""
        return chances.order(self._chances_N, epoch) if self.shuffle else np.arange(len(self))

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch: every readable sample once (less what `drop_last` leaves out).

        Args:
            epoch: decides order and crops.
            start_step: the first batch to yield; the others are not read.

        Raises:
            DataError: more samples are broken than `max_broken_fraction` allows.
        """
        self.prepare()
        order = self.order(epoch)
        size = self.batch_size
        slices = [order[step * size : (step + 1) * size] for step in range(start_step, self.steps_per_epoch)]
        if self._squares is not None:
            yield from (self._from_squares(self._squares, rows, epoch) for rows in slices)
        else:
            yield from self._from_workers(slices, epoch)

    def prepare(self, report: Callable[[int], None] | None = None) -> None:
        """Fill the cache, if there is to be one and it is not filled; `epoch` does so too.

        Args:
            report: told how many samples were decoded since it was last told.

        Raises:
            DataError: more samples are broken than `max_broken_fraction` allows.
        """
        if not self.cached or self._squares is not None or self._photos is not None:
            return
        side = self._geometry.side if isinstance(self._geometry, Squares) else 0
        squares_NSS3 = torch.zeros(len(self), side, side, 3, dtype=torch.uint8)
        photos: list[Any] = [None] * len(self)
        chunks = np.split(np.arange(len(self)), range(CHUNK, len(self), CHUNK))
        with closing(
            in_order((partial(self._read, c) for c in chunks), self.workers, 4 * self.workers)
        ) as parts:
            for part in parts:
                self._note(part.broken)
                self._known_broken |= part.broken
                for row, kept in zip(part.rows, part.content, strict=True):
                    if side:
                        squares_NSS3.numpy()[row] = kept
                    else:
                        photos[row] = kept
                if report:
                    report(len(part.rows) + len(part.broken))
        if side:
            self._squares = squares_NSS3.to(self.device)
        else:
            self._photos = photos

    def _from_squares(self, squares_NSS3: Tensor, rows: np.ndarray, epoch: int) -> Batch:
        if self._known_broken:
            rows = rows[[row not in self._known_broken for row in rows]]
        pixels_BSS3 = squares_NSS3[torch.from_numpy(rows).to(self.device)]
        return self._batch(pixels_BSS3, rows, epoch)

    def _from_workers(self, slices: Sequence[np.ndarray], epoch: int) -> Iterator[Batch]:
        shares = max(1, self.workers)  # of a batch, one a worker
        tasks = (
            partial(self._cut, share, epoch) for rows in slices for share in np.array_split(rows, shares)
        )
        with closing(in_order(tasks, self.workers, AHEAD * shares)) as parts:
            for _ in slices:
                done = [next(parts) for _ in range(shares)]
                for part in done:
                    self._note(part.broken)
                read = [part.content for part in done if len(part.rows)]
                if not read:
                    yield self._nothing()
                    continue
                pixels = torch.from_numpy(np.concatenate(read))
                if self.device.type == "cuda":
                    pixels = pixels.pin_memory().to(self.device, non_blocking=True)
                yield self._batch(pixels, np.concatenate([part.rows for part in done]), epoch)

    def _batch(self, pixels: Tensor, rows: np.ndarray, epoch: int) -> Batch:
        images_B3TT = self._geometry.finish(pixels, self._chances_N[rows], epoch)
        labels = torch.from_numpy(self.labels_N[rows]).to(self.device)
        return Batch(images_B3TT, labels, self._keys.take(pa.array(rows)).to_pylist(), rows)

    @staticmethod
    def _nothing() -> (
        Batch
    ):  # a batch of broken images alone still is a step, or a resumed run would lose count
        return Batch(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), torch.zeros(0), [], np.zeros(0, np.int64))

    def _cut(self, rows: np.ndarray, epoch: int) -> _Part:
        part = self._read(rows)
        if not len(part.rows):
            return part
        return part._replace(content=self._geometry.cut(part.content, self._chances_N[part.rows], epoch))

    def _read(self, rows: np.ndarray) -> _Part:
        """Take rows from memory, or read and decode them. This runs in a worker."""
        content: dict[int, Any] = {}
        broken: dict[int, str] = {}
        if self._photos is not None:
            broken = {row: self._known_broken[row] for row in rows if row in self._known_broken}
            content = {row: self._photos[row] for row in rows if row not in broken}
        else:
            places = self.table.select(["file", "offset", "size"]).take(pa.array(rows)).to_pylist()
            for row, place in zip(rows, places, strict=True):
                try:
                    content[row] = self._geometry.decode(self._reader.read(**place))
                except (BadImage, DataError) as error:
                    broken[row] = error.message if isinstance(error, DataError) else str(error)
        return _Part(np.array(list(content), dtype=np.int64), list(content.values()), broken)

    def _note(self, broken: dict[int, str]) -> None:
        """Remember what could not be read, and stop when it is too much."""
        if not broken:
            return
        self.broken |= {self._keys[row].as_py(): reason for row, reason in broken.items()}
        share = len(self.broken) / len(self)
        if share > self.max_broken_fraction:
            examples = "".join(f"\n  {key}: {self.broken[key]}" for key in sorted(self.broken)[:3])
            raise DataError(
                f"{self.dataset.path}: {len(self.broken)} of {len(self)} images cannot be read so far "
                f"({share:.1%}, {self.max_broken_fraction:.1%} may be){examples}",
                hint=f"`curate verify {self.dataset.path}` lists them all",
            )

    def _cache_bytes(self) -> int:
        sizes = [
            pc.fill_null(self.table[side], 0).to_numpy().astype(np.int64) for side in ("width", "height")
        ]
        return self._geometry.kept_bytes(sizes[0] * sizes[1])
