"""A dataset on disk: `manifest.parquet`, `dataset.json` (written last), a card, shards once they are wanted.

`dataset.json` holds only what follows from the recipe and its source, so two builds of one recipe agree to
the byte; when, where and how long stands beside it in `build.json`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from curate.datasets import contracts
from curate.errors import DataError, RecipeError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.paths import AnyPath, RemotePath, as_path
from curate.io.records import Record, read_record
from curate.io.stores import is_remote
from curate.rows.manifest import Class, digest

INFO = "dataset.json"
MANIFEST = "manifest.parquet"
OUTCOMES = "outcomes.parquet"  # of a pool: what became of each row that was asked for
BUILD = "build.json"
CARD = "README.md"
SHARDS = "shards"
PARTS = "parts"  # below a dataset that is not finished: a record of each shard that is
SHARD_INDEX = "shards/index.parquet"
FORMAT = 1


class ClassRecord(Record):
    """A class as `dataset.json` lists it, in label order."""

    index: int
    name: str
    wnid: str | None = None
    fine: list[str] = Field(default_factory=list)


class ShardRecord(Record):
    """One tar: its file below the dataset, samples, bytes, and the sha256 of its bytes."""

    file: str
    samples: int
    bytes: int
    sha256: str


class StepRecord(Record):
    """What one step did to the rows, found by comparing before and after (the ledger)."""

    step: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    rows_in: int
    rows_out: int
    classes_in: int
    classes_out: int
    labels_changed: int = 0
    captions_changed: int = 0
    columns_added: list[str] = Field(default_factory=list)
    refused: dict[str, int] = Field(default_factory=dict)  # reason → rows dropped or flagged for it
    transitions: list[tuple[str, str, int]] = Field(default_factory=list)  # true class, given class, rows
    notes: list[str] = Field(default_factory=list)


class DatasetInfo(Record):
    """The content of `dataset.json`."""

    format: int = FORMAT
    name: str
    digest: str  # of the rows and the classes
    plan: str  # digest of recipe, source content, versions of the operations
    rows: int
    bytes: int  # of all images
    root: str  # what `file` is relative to
    columns: dict[str, str]
    classes: list[ClassRecord]
    recipe: dict[str, Any]
    source: dict[str, Any]
    ledger: list[StepRecord]
    manifest_sha256: str
    shards: list[ShardRecord] | None = None
    index_sha256: str | None = None
    seal: str = ""  # digest of all the rest, so that a change of any word is seen


def render(info: DatasetInfo) -> bytes:
    """Return the bytes of `dataset.json`, sealed."""
    rest = info.model_dump(mode="json", exclude={"seal"})
    return (info.model_copy(update={"seal": digest(rest)}).model_dump_json(indent=1) + "\n").encode()


class Dataset:
    """A finished dataset, opened for reading. Make one with `open_dataset`.

    Args:
        path: its folder, here or in a store.
    """

    def __init__(self, path: AnyPath, info: DatasetInfo) -> None:
        self.path = path
        self.info = info
        self._fetched: dict[str, bytes] = {}  # file in a store → its bytes
        self._held = False  # whether the rows are known to be as docs/data.md has them

    @property
    def name(self) -> str:
        """The recipe's name, or the variant's in a matrix."""
        return self.info.name

    @property
    def digest(self) -> str:
        """Names the rows and classes: equal for equal content, wherever and however often it was built."""
        return self.info.digest

    @cached_property
    def classes(self) -> tuple[Class, ...]:
        """The classes in label order."""
        return tuple(Class(c.name, c.wnid, tuple(c.fine)) for c in self.info.classes)

    @property
    def sharded(self) -> bool:
        """Whether the bytes are in shards of its own; an overlay points into others' files."""
        return self.info.shards is not None

    def __len__(self) -> int:
        return self.info.rows

    def __repr__(self) -> str:
        kind = "shards" if self.sharded else "overlay"
        return f"Dataset({self.name!r}, {len(self)} rows, {len(self.classes)} classes, {kind})"

    def table(self, columns: Sequence[str] | None = None):  # -> pyarrow.Table
        """Return the rows in order as an Arrow table.

        `file`, `offset` and `size` say where the bytes are now, relative to `byte_root`: in the dataset's own
        shards where it has them, else in the pool.

        Args:
            columns: the columns to read; all by default.

        Raises:
            DataError: a file of the dataset is missing or damaged, a column is absent, or the rows are not as
                docs/data.md has them.
        """
        import pyarrow.parquet as pq

        self.refuse_rows()
        absent = [c for c in columns or [] if c not in self.info.columns]
        if absent:
            raise DataError(
                f"{self.path}: no column {absent[0]!r}", hint=f"it has: {', '.join(self.info.columns)}"
            )
        try:
            table = pq.ParquetFile(self._file(MANIFEST)).read(columns)
            if self.sharded:  # after resizing, width, height and ext are there too
                index = pq.ParquetFile(self._file(SHARD_INDEX))
                moved = [c for c in table.column_names if c in index.schema_arrow.names and c != "key"]
                places = index.read(moved)
                if places.num_rows != table.num_rows:
                    raise ValueError(f"{SHARD_INDEX} has {places.num_rows} rows, {MANIFEST} {table.num_rows}")
                for name in moved:
                    table = table.set_column(table.column_names.index(name), name, places[name])
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: manifest cannot be read ({error})", hint="`curate verify` it"
            ) from error
        return table

    @property
    def manifest(self) -> AnyPath:
        """The manifest, once its rows are found to be as docs/data.md has them: what others read rows from.

        Raises:
            DataError: they are not.
        """
        self.refuse_rows()
        return self.path / MANIFEST

    def refuse_rows(self) -> None:
        """Refuse rows that are not as docs/data.md has them, whoever wrote them; what held is not looked at again.

        Raises:
            DataError: they are not, or cannot be read.
        """
        if self._held:
            return
        marker = contracts.remembered(self)
        if marker is None or not marker.exists():
            if faults := contracts.faults(self):
                where = f"{self.path / MANIFEST}: {faults[0]}"
                hint = f"`curate verify {self.path}` tells all that is wrong; do not use what others made so"
                raise DataError(where, hint=hint)
            if marker is not None:
                contracts.remember(marker)
        self._held = True

    def read_parquet(self, name: str):  # -> pyarrow.Table
        """Return a file of the dataset as it stands there, unchecked."""
        import pyarrow.parquet as pq

        return pq.ParquetFile(self._file(name)).read()

    def _file(self, name: str) -> Any:
        """Return what Parquet is read from; what lies in a store is fetched once."""
        file = self.path / name
        if not isinstance(file, RemotePath):
            return file
        if name not in self._fetched:
            self._fetched[name] = file.read_bytes()
        return io.BytesIO(self._fetched[name])

    @property
    def byte_root(self) -> str:
        """What the `file` of `table()` is relative to."""
        if self.sharded or not is_remote(self.info.root):
            return str(self.path if self.sharded else (self.path / self.info.root).resolve())
        return self.info.root

    def build_record(self) -> dict[str, Any]:
        """Return `build.json`: when, where and how long; empty where it is gone."""
        try:
            record = json.loads((self.path / BUILD).read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    @property
    def hashed(self) -> bool:
        """Whether `hashes` made the column sha256; another's column of that name may be of other bytes."""
        return any(step.step == "hashes" and "sha256" in step.columns_added for step in self.info.ledger)

    @cached_property
    def unfetched(self) -> int:
        """How many rows have no bytes yet: those of a table of URLs."""
        return 0 if self.sharded else self.nulls("file")

    def nulls(self, column: str) -> int:
        """Return how many rows have no value in a column of the manifest."""
        import pyarrow.parquet as pq

        return pq.ParquetFile(self._file(MANIFEST)).read([column])[column].null_count

    def reader(self) -> ByteRangeReader:
        """Return a reader for the byte ranges of `table()`.

        Raises:
            DataError: rows have no bytes yet, or are not as docs/data.md has them.
        """
        self.refuse_rows()
        self.refuse_unfetched()
        return ByteRangeReader(self.byte_root)

    def refuse_unfetched(self) -> None:
        """Refuse rows that have no bytes yet.

        Raises:
            DataError: there are some.
        """
        if self.unfetched:
            raise DataError(
                f"{self.path}: {self.unfetched:,} of {len(self):,} rows are URLs whose images nobody has fetched",
                hint=f"`curate fetch {self.path} --out POOL` makes a dataset with their bytes",
            )


def open_dataset(path: str | AnyPath) -> Dataset:
    """Open a finished dataset.

    Raises:
        RecipeError: there is no dataset at `path`.
        DataError: `dataset.json` is damaged, of another format, or says what none of ours does.
    """
    path = as_path(path)
    try:
        info = read_record(path / INFO, DatasetInfo, format_version=FORMAT, hint="build it again")
    except (FileNotFoundError, NotADirectoryError):
        hint = "`curate build RECIPE --out DIR` makes one"
        if isinstance(path, Path) and path.is_dir() and any(path.glob(f"*/{INFO}")):
            hint = "it holds a family of datasets; name one of its folders"
        raise RecipeError(f"{path}: not a dataset (no {INFO})", hint=hint) from None
    if fault := contracts.info_fault(info):
        hint = "`curate` writes none like it; do not use what others made so, or build it again"
        raise DataError(f"{path / INFO}: {fault}", hint=hint)
    return Dataset(path, info)


def set_digest(content: str, recipe: dict[str, Any]) -> str:
    """Return the digest that names a dataset: that of rows and classes, and of resizing, which changes neither."""
    resize = recipe.get("resize")
    return digest([content, {"resize": resize}]) if resize else content


def file_sha256(path: AnyPath) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()
