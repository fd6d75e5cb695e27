"""Does a dataset hold what it says? Digests, counts, the index, and every image decoded; others' tars are linted."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.datasets import contracts
from curate.datasets.dataset import (
    INFO,
    MANIFEST,
    SHARD_INDEX,
    Dataset,
    ShardRecord,
    file_sha256,
    open_dataset,
    render,
    set_digest,
)
from curate.datasets.lint.tars import lint
from curate.errors import DataError, RecipeError, first_line
from curate.io.executors import cores, in_order
from curate.io.image_headers import BadImage, probe
from curate.io.images import decode
from curate.io.paths import as_path, local_copy
from curate.io.progress import Quiet, Stage
from curate.io.stores import StoreError, is_remote
from curate.io.tars.findings import Report
from curate.io.tars.headers import BadTar
from curate.io.tars.scan import open_tar, split_name
from curate.rows.manifest import content_digest, rows_digest
from curate.rows.sql import parquet

ROWS_PER_READ, BYTES_PER_READ = 64, 16 << 20  # a thread


@dataclass(frozen=True)
class Problem:
    """One thing that does not hold: where (a file, or a sample's key) and what.

    Args:
        shard: that a sample lies in, by which the samples of a lost shard are told together.
    """

    where: str
    what: str
    shard: str = field(default="", compare=False)


@dataclass(frozen=True)
class Verdict:
    """What checking datasets came to: which were looked at, and what does not hold."""

    paths: Sequence[str]
    problems: list[Problem]

    @property
    def failed(self) -> bool:
        """Whether something does not hold."""
        return bool(self.problems)


def check(paths: Sequence[str], *, images: bool = True, progress: Quiet | None = None) -> Verdict | Report:
    """Check datasets against what they say, or lint tars that anybody wrote.

    Args:
        paths: datasets; or tars, folders of tars, patterns, URLs, which are taken together.
        images: also decode every image.

    Raises:
        RecipeError: nothing stands at a path, or datasets and other things are mixed.
        DataError: a `dataset.json` is damaged beyond reading.
    """
    ours = [path for path in paths if _is_dataset(path)]
    if family := next(filter(_is_family, paths), None):
        hint = f"it holds a family of datasets: `curate verify {family.rstrip('/')}/*`"
        raise RecipeError(f"{family}: not a dataset (no {INFO})", hint=hint)
    if not ours:
        try:
            return lint(paths, images=images, progress=progress)
        except RecipeError as error:
            hint = "name a dataset's folder, a .tar, a folder of them, or a pattern"
            raise RecipeError(f"{error.message}, and not a dataset", hint=hint) from error
    others = [path for path in paths if path not in ours]
    if others:
        raise RecipeError(
            f"{ours[0]} is a dataset, {others[0]} is not",
            hint="verify datasets and others' tars one after the other",
        )
    problems = []
    for path in ours:
        before = f"{path}: " if len(ours) > 1 else ""
        for p in verify(path, images=images, progress=progress):
            problems.append(replace(p, where=before + p.where, shard=p.shard and before + p.shard))
    return Verdict(paths, problems)


def _is_dataset(path: str) -> bool:
    """Whether a path is a dataset, or what is left of one; `open_dataset` tells these apart."""
    return any((as_path(path) / name).exists() for name in (INFO, MANIFEST))


def _is_family(path: str) -> bool:
    """Whether a path is a folder of datasets, and none itself."""
    return not is_remote(path) and any(Path(path).glob(f"*/{INFO}")) and not _is_dataset(path)


def verify(path: str | Path, *, images: bool = True, progress: Quiet | None = None) -> list[Problem]:
    """Check a dataset and return what is wrong with it; an empty list means that it holds what it says.

    Args:
        images: also read and decode every image; without, only files and digests are checked.

    Raises:
        RecipeError: there is no dataset.
        DataError: `dataset.json` is damaged beyond reading.
    """
    dataset = open_dataset(path)
    progress = progress or Quiet()
    problems = [*_document(dataset), *_manifest(dataset)]
    problems += _shards(dataset, progress)
    whole = not any(p.where in (MANIFEST, SHARD_INDEX) for p in problems)
    if (
        images and whole and not dataset.unfetched
    ):  # without a sound manifest there is no telling where the images are
        with progress.stage("decoding images", len(dataset)) as stage:
            problems += _images(dataset, stage)
    return problems


def _document(dataset: Dataset) -> Iterator[Problem]:
    info = dataset.info
    if (dataset.path / INFO).read_bytes() != render(info):
        yield Problem(INFO, "its bytes are not those that were written")
    counted = sum(s.samples for s in info.shards or [])
    if info.shards is not None and counted != info.rows:
        yield Problem(INFO, f"its shards hold {counted:,} samples, the set has {info.rows:,}")


def _manifest(dataset: Dataset) -> Iterator[Problem]:
    info = dataset.info
    try:
        with local_copy(dataset.path / MANIFEST) as path, duckdb.connect() as con:
            if file_sha256(path) != info.manifest_sha256:
                yield Problem(MANIFEST, "its bytes are not those that were written (sha256 differs)")
                return
            con.execute(f"CREATE VIEW rows AS FROM {parquet(path, file_row_number=True)}")
            [(count,)] = con.execute("SELECT count(*) FROM rows").fetchall()
            rows = rows_digest(con, "rows", "file_row_number", list(info.columns))
    except (OSError, duckdb.Error) as error:
        yield Problem(MANIFEST, f"cannot be read: {first_line(error)}")
        return
    if count != info.rows:
        yield Problem(MANIFEST, f"{count:,} rows, {INFO} says {info.rows:,}")
    if set_digest(content_digest(rows, dataset.classes), info.recipe) != info.digest:
        yield Problem(INFO, "the digest of rows and classes is another")
    try:
        faults = contracts.faults(dataset)
    except DataError:
        return  # the index of the shards, which has a check of its own
    for fault in faults:
        yield Problem(SHARD_INDEX if fault.startswith(SHARD_INDEX) else MANIFEST, fault)


def _shards(dataset: Dataset, progress: Quiet) -> list[Problem]:
    records = dataset.info.shards
    if records is None:
        return []
    index, problems = _index(dataset)
    # Rows lie in the order of the shards.
    starts = itertools.accumulate((r.samples for r in records), initial=0)

    def look(record: ShardRecord, start: int) -> list[Problem]:
        with local_copy(dataset.path / record.file) as tar:
            if fault := _changed(tar, record.sha256, record.bytes):
                return [Problem(record.file, fault)]
            return [] if index is None else list(_headers(tar, record, index.slice(start, record.samples)))

    with progress.stage("reading shards", len(records)) as stage, ThreadPoolExecutor() as pool:
        for found in pool.map(look, records, starts):
            problems += found
            stage.advance()
    return problems


def _index(dataset: Dataset) -> tuple[Any, list[Problem]]:
    """Return the index with `ext`, from the manifest where it has none; or None, and what is wrong with it."""
    with local_copy(dataset.path / SHARD_INDEX) as path:
        if fault := _changed(path, dataset.info.index_sha256):
            return None, [Problem(SHARD_INDEX, fault)]
        index = pq.read_table(path)
    with local_copy(dataset.path / MANIFEST) as path:
        if _changed(path, dataset.info.manifest_sha256):
            return None, []  # the manifest's own check says so
        rows = pq.read_table(path, columns=["key", "ext"])
    if index["key"] != rows["key"]:
        return None, [Problem(SHARD_INDEX, f"its keys are not those of {MANIFEST}, row for row")]
    return (index if "ext" in index.column_names else index.append_column("ext", rows["ext"])), []


def _changed(path: Path, sha256: str | None, size: int | None = None) -> str | None:
    """Return what is wrong with a file that should have this sha256, and so many bytes."""
    try:
        if size is not None and (actual := path.stat().st_size) != size:
            return f"{actual:,} bytes where {size:,} were written"
        return None if file_sha256(path) == sha256 else "its bytes changed (sha256 differs)"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _headers(path: Path, record: ShardRecord, rows: pa.Table) -> Iterator[Problem]:
    """Hold what the index says of one tar against the headers in it."""
    if rows["file"].unique().to_pylist() != [record.file]:
        yield Problem(
            SHARD_INDEX, f"{len(rows):,} rows should be of {record.file}, and others are among them"
        )
        return
    try:
        with open_tar(str(path)) as tar:
            members = {m.offset: m for m in tar.members()}
    except (BadTar, OSError) as error:
        yield Problem(record.file, f"not a sound tar ({error})")
        return
    samples = len({split_name(m.name)[0] for m in members.values()})
    if samples != len(rows):
        yield Problem(record.file, f"holds {samples:,} samples, the index has {len(rows):,} of them")
    for row in rows.to_pylist():
        member = members.get(row["offset"])
        if member is None or (member.name, member.size) != (f"{row['key']}.{row['ext']}", row["size"]):
            present = f"{member.name!r} of {member.size} bytes" if member else "no member"
            what = f"the index has it at byte {row['offset']} of {record.file}, where there is {present}"
            yield Problem(row["key"], what, record.file)


def _images(dataset: Dataset, stage: Stage) -> Iterator[Problem]:
    columns = ["key", "file", "offset", "size", "width", "height"]
    if not dataset.sharded:  # shards have a sha256 of their own; the files of a pool may be exchanged
        columns += ["ext", *(["sha256"] if dataset.hashed else [])]
    batches = dataset.table(columns).to_batches(max_chunksize=ROWS_PER_READ)
    reader = dataset.reader()

    def check(batch: Any) -> list[Problem]:
        found = []
        for rows in _reads(batch.to_pylist()):
            read = reader.read_many(*([row[c] for row in rows] for c in ("file", "offset", "size")))
            for row, data in zip(rows, read, strict=True):
                if what := _image_fault(data, row):
                    # Of our own shards as the shards themselves are told; a pool lies elsewhere.
                    what = what.removeprefix(f"{reader.root}/") if dataset.sharded else what
                    found.append(Problem(row["key"], what, row["file"] if dataset.sharded else ""))
        return found

    tasks = (partial(check, batch) for batch in batches)
    for batch, found in zip(batches, in_order(tasks, cores(), ahead=8 * cores()), strict=True):
        yield from found
        stage.advance(batch.num_rows)


def _reads(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Split rows into what is read at once: so many bytes, but for an image that alone is larger."""
    first, total = 0, 0
    for i, row in enumerate(rows):
        total += row["size"] or 0
        if i > first and total > BYTES_PER_READ:
            yield rows[first:i]
            first, total = i, row["size"] or 0
    yield rows[first:]


def _image_fault(data: bytes | DataError, row: dict[str, Any]) -> str | None:
    """Return what is wrong with a row's image.

    Raises:
        StoreError: which is no fault of this row; the next would wait as long and say the same.
    """
    if isinstance(data, StoreError):
        raise data
    if isinstance(data, DataError):
        return first_line(data)
    try:
        if row.get("sha256") and hashlib.sha256(data).hexdigest() != row["sha256"]:
            return "other bytes than were indexed (sha256 differs)"
        image = decode(data)
        kind = probe(data).ext
    except BadImage as error:
        return first_line(error)
    if row["width"] is not None and image.size != (row["width"], row["height"]):
        return f"{image.width} x {image.height} pixels, the manifest says {row['width']} x {row['height']}"
    if kind != row.get("ext", kind):
        return f"its bytes are {kind}, the manifest says {row['ext']}"
    return None
