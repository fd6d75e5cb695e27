"""Another dataset or overlay."""

from __future__ import annotations

from pathlib import Path

from curate.datasets import contracts
from curate.datasets.dataset import MANIFEST, Dataset, open_dataset
from curate.sources import Index, Progress, Source
from curate.sources._index_cache import LeftOut, cached


def dataset(*, path: str) -> Source:
    """Take the rows of another dataset, an overlay or one with shards.

    Args:
        path: the dataset's folder.
    """
    return DatasetSource(open_dataset(path))


class DatasetSource(Source):
    """The source that `dataset` opens."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.root = dataset.byte_root
        self.columns = dict(dataset.info.columns)
        self.classes = dataset.classes
        self.rows = len(dataset)

    @property
    def homes(self) -> list[str]:
        """The dataset's folder; an overlay's bytes lie elsewhere."""
        return [str(self.dataset.path)]

    @property
    def outside(self) -> list[str]:
        """What the dataset says of where its images lie."""
        return contracts.outside(self.dataset)

    def fingerprint(self) -> str:
        """A finished dataset is what its `dataset.json` says."""
        return f"{self.dataset.digest} {self.dataset.info.index_sha256}"

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Point to the manifest, or to one whose rows point into the dataset's own shards."""
        data = self.dataset
        if not data.sharded and isinstance(data.path, Path):
            data.refuse_rows()
            return Index.of(data.path / MANIFEST, data.classes, data.digest, len(data))
        identity = {"path": str(data.path.resolve())}
        return cached("dataset", identity, fingerprint, lambda: (data.table(), data.classes, LeftOut()))
