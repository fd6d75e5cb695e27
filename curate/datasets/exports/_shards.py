"""The shards of a dataset as other libraries want them told: by one pattern, and sample by sample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from curate.datasets.dataset import SHARD_INDEX, Dataset, ShardRecord
from curate.errors import DataError
from curate.io.tars.archive import BLOCK
from curate.io.tars.scan import BadTar, open_tar


class Part(NamedTuple):
    """One member of a sample: its extension, where its bytes begin in the tar, and how many there are."""

    ext: str
    offset: int
    size: int


@dataclass
class Sample:
    """One sample of a shard.

    Args:
        key: its key in the manifest.
        start: where its first header begins, in bytes; the sample before ends here.
        parts: its members, in their order.
    """

    key: str
    start: int
    parts: list[Part] = field(default_factory=list)


class Layout(NamedTuple):
    """The samples of one shard, and where the last one ends, in bytes."""

    samples: list[Sample]
    end: int


def brace(dataset: Dataset) -> str:
    """Return the shards as one pattern below the dataset, without its extension: `shards/{000000..000012}`."""
    files = [record.file.removesuffix(".tar") for record in dataset.info.shards or []]
    first, last = files[0], files[-1].rpartition("/")[2]
    folder, _, name = first.rpartition("/")
    return first if len(files) == 1 else f"{folder}/{{{name}..{last}}}"


def layouts(dataset: Dataset) -> Iterator[tuple[ShardRecord, Layout]]:
    """Yield where every member of every shard lies, read from the tars' own headers and held against the index.

    Raises:
        DataError: a shard cannot be read, or is not the one that the index describes.
    """
    index = dataset.table(["key", "offset", "size"])
    at = 0
    for record in dataset.info.shards or []:
        try:
            layout = _layout(str(dataset.path / record.file))
        except (OSError, BadTar) as error:
            raise DataError(
                f"{dataset.path / record.file}: {error}", hint=f"`curate verify {dataset.path}`"
            ) from error
        rows = index.slice(at, record.samples).to_pydict()
        at += record.samples
        images = {(sample.key, part.offset, part.size) for sample in layout.samples for part in sample.parts}
        wanted = list(zip(rows["key"], rows["offset"], rows["size"], strict=True))
        if [sample.key for sample in layout.samples] != rows["key"] or not images.issuperset(wanted):
            raise DataError(
                f"{dataset.path / record.file}: is not what {SHARD_INDEX} describes",
                hint=f"`curate verify {dataset.path}` says what changed",
            )
        yield record, layout


def _layout(path: str) -> Layout:
    samples: list[Sample] = []
    end = 0  # of the member before, and so the start of the next one's headers
    with open_tar(path) as tar:
        for member in tar.members():
            key, _, ext = member.name.partition(".")  # keys have no dots
            if not samples or samples[-1].key != key:
                samples.append(Sample(key, end))
            samples[-1].parts.append(Part(ext, member.offset, member.size))
            end = member.offset + -(-member.size // BLOCK) * BLOCK
    return Layout(samples, end)
