"""Does a dataset hold what it says? Digests, counts, the index, and every image decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets import INFO, MANIFEST, SHARD_INDEX, Dataset, file_sha256, open_dataset, render
from curate.errors import DataError
from curate.images import BadImage, decode
from curate.manifests import content_digest, rows_digest, text
from curate.progress import Quiet, Stage
from curate.ranges import Reader

ROWS_PER_TASK = 256


@dataclass(frozen=True)
class Problem:
    """One thing that does not hold: where (a file, or a sample's key) and what."""

    where: str
    what: str


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
    if images and whole:  # without a sound manifest there is no telling where the images are
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
    info, path = dataset.info, dataset.path / MANIFEST
    try:
        if file_sha256(path) != info.manifest_sha256:
            yield Problem(MANIFEST, "its bytes are not those that were written (sha256 differs)")
            return
        with duckdb.connect() as con:
            con.execute(f"CREATE VIEW rows AS FROM read_parquet({text(str(path))}, file_row_number = true)")
            count = con.execute("SELECT count(*) FROM rows").fetchone()
            rows = rows_digest(con, "rows", "file_row_number", list(info.columns))
    except (OSError, duckdb.Error) as error:
        yield Problem(MANIFEST, f"cannot be read: {str(error).splitlines()[0]}")
        return
    if count != (info.rows,):
        yield Problem(MANIFEST, f"{count[0] if count else 0:,} rows, {INFO} says {info.rows:,}")
    if content_digest(rows, dataset.classes) != info.digest:
        yield Problem(INFO, "the digest of rows and classes is another")


def _shards(dataset: Dataset, progress: Quiet) -> list[Problem]:
    records = dataset.info.shards
    if records is None:
        return []
    problems = []
    with progress.stage("hashing shards", len(records)) as stage, ThreadPoolExecutor() as pool:
        for record, found in zip(
            records, pool.map(lambda r: _hashed(dataset.path / r.file), records), strict=True
        ):
            if found != record.sha256:
                problems.append(
                    Problem(record.file, found if " " in found else "its bytes changed (sha256 differs)")
                )
            stage.advance()
    found = _hashed(dataset.path / SHARD_INDEX)
    if found != dataset.info.index_sha256:
        problems.append(Problem(SHARD_INDEX, found if " " in found else "its bytes changed (sha256 differs)"))
    return problems


def _hashed(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _images(dataset: Dataset, stage: Stage) -> Iterator[Problem]:
    columns = ["key", "file", "offset", "size", "width", "height"]
    batches = dataset.table(columns).to_batches(max_chunksize=ROWS_PER_TASK)
    reader = dataset.reader()

    def check(batch: Any) -> list[Problem]:
        return [Problem(row["key"], what) for row in batch.to_pylist() if (what := _image_fault(reader, row))]

    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        # In rounds, so that a hundred million rows are not all queued at once.
        for start in range(0, len(batches), workers * 8):
            round_ = batches[start : start + workers * 8]
            for batch, found in zip(round_, pool.map(check, round_), strict=True):
                yield from found
                stage.advance(batch.num_rows)


def _image_fault(reader: Reader, row: dict[str, Any]) -> str | None:
    try:
        image = decode(reader.read(row["file"], row["offset"], row["size"]))
    except (BadImage, DataError) as error:
        return str(error).split("\n")[0]
    if row["width"] is not None and image.size != (row["width"], row["height"]):
        return f"{image.width} x {image.height} pixels, the manifest says {row['width']} x {row['height']}"
    return None
