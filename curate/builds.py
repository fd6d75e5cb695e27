"""From a recipe to a dataset on disk."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import duckdb

from curate.cards import card
from curate.datasets import (
    BUILD,
    CARD,
    INFO,
    MANIFEST,
    SHARD_INDEX,
    ClassRecord,
    Dataset,
    DatasetInfo,
    file_sha256,
    open_dataset,
    render,
)
from curate.errors import CurateError, DataError, RecipeError
from curate.files import write_atomic
from curate.frames import Made, Seconds, make_manifest
from curate.manifests import digest
from curate.plans import Plan, plan
from curate.progress import Quiet
from curate.ranges import is_remote
from curate.recipes import Recipe
from curate.shards.writing import write_shards
from curate.sources import Index
from curate.stagings import Staging, refuse_foreign, refuse_source, restore


@dataclass(frozen=True)
class Built:
    """What a build came to.

    Args:
        unchanged: whether it was there already and nothing was done.
        seconds: wall time of this call.
    """

    dataset: Dataset
    unchanged: bool
    seconds: float


def build(
    recipe: Recipe,
    out: str | Path,
    *,
    overlay: bool = False,
    workers: int | None = None,
    replace: bool = False,
    progress: Quiet | None = None,
) -> list[Built]:
    """Build what a recipe says into a folder; a matrix, each set into a folder of its own below it.

    Nothing stands in the folder until the set is finished. A set that is there and up to date is left alone; a
    build that was killed goes on where it was, and ends with the same bytes.

    Args:
        out: the dataset's folder.
        overlay: leave the bytes where they are instead of copying them into shards.
        workers: threads that write shards; one a core by default. They change nothing but the time.
        replace: whether to replace a dataset of another name that stands in `out`.

    Raises:
        RecipeError: the recipe is wrong, or `out` holds something else.
        DataError: the rows do not allow a step, break a promise of `expect`, or cannot be read.
    """
    out = Path(out)
    progress = progress or Quiet()
    workers = workers or os.cpu_count() or 1
    if recipe.family:
        plans = [plan(one) for one in recipe.family]  # find every fault before the first is built
        return [_build(p, out / p.recipe.name, overlay, workers, replace, progress) for p in plans]
    return [_build(plan(recipe), out, overlay, workers, replace, progress)]


def shard(out: str | Path, *, workers: int | None = None, progress: Quiet | None = None) -> Built:
    """Give an overlay its shards, as `build` without `overlay` would have.

    Raises:
        RecipeError: there is no dataset.
        DataError: the pool that the overlay points into has changed or is gone.
    """
    began = time.monotonic()
    restore(Path(out))
    dataset = open_dataset(out)
    if dataset.sharded:
        return Built(dataset, True, time.monotonic() - began)
    with _told(dataset.path), Staging(dataset.path) as staging:
        staging.keep = True
        staging.begin(dataset.info.plan)
        info = _with_shards(dataset, staging.path, workers or os.cpu_count() or 1, progress or Quiet())
        for name in (MANIFEST, CARD, BUILD):
            shutil.copy2(dataset.path / name, staging.path / name)
        write_atomic(staging.path / INFO, render(info))
        staging.publish()
    return Built(open_dataset(out), False, time.monotonic() - began)


def _build(plan: Plan, out: Path, overlay: bool, workers: int, replace: bool, progress: Quiet) -> Built:
    began = time.monotonic()
    restore(out)
    refuse_foreign(out)
    for home in plan.source.homes:
        refuse_source(out, home)
    with _told(out), Staging(out) as staging:
        with progress.stage("reading the source") as stage:
            fingerprint = plan.source.fingerprint()
            index = plan.source.index(fingerprint=fingerprint, progress=stage.advance)
        wanted = plan.digest(index.digest)
        there = _there(out, plan.recipe.name, replace)
        if there and (overlay or there.sharded) and _is_current(there, wanted, fingerprint):
            return Built(there, True, time.monotonic() - began)
        staging.keep = True
        staging.begin(digest([wanted, fingerprint, overlay]))
        made = make_manifest(plan, index, staging.path, progress=progress)
        info = _describe(plan, index, made, staging.path, wanted, out)
        seconds = made.seconds
        if not overlay:
            started = time.monotonic()
            info = _with_shards(
                Dataset(staging.path, info), staging.path, workers, progress, root=plan.source.root
            )
            seconds.append(["shards", time.monotonic() - started])
        _finish(staging.path, info, seconds, fingerprint)
        staging.publish()
    return Built(open_dataset(out), False, time.monotonic() - began)


def _is_current(there: Dataset, wanted: str, fingerprint: str) -> bool:
    try:
        seen = json.loads((there.path / BUILD).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return False
    shards = [SHARD_INDEX, *(s.file for s in there.info.shards)] if there.info.shards is not None else []
    whole = all((there.path / file).is_file() for file in [MANIFEST, *shards])
    return whole and there.info.plan == wanted and seen == digest(fingerprint)


def _there(out: Path, name: str, replace: bool) -> Dataset | None:
    """Return the dataset in `out`, if any; refuse one of another name."""
    if not (out / INFO).exists():
        return None
    try:
        there = open_dataset(out)
    except DataError:
        return None  # damaged: this build puts it right
    if there.name != name and not replace:
        raise RecipeError(
            f"{out}: holds the dataset {there.name!r}, not {name!r}; nothing was touched",
            hint="choose another --out, or say --replace",
        )
    return there


def _describe(plan: Plan, index: Index, made: Made, folder: Path, wanted: str, out: Path) -> DatasetInfo:
    root = plan.source.root
    numbered = enumerate(made.classes)
    return DatasetInfo(
        name=plan.recipe.name,
        digest=made.digest,
        plan=wanted,
        rows=made.rows,
        bytes=made.bytes,
        root=root if is_remote(root) else os.path.relpath(root, out.resolve()),
        columns=made.columns,
        classes=[ClassRecord(index=i, name=c.name, wnid=c.wnid, fine=list(c.fine)) for i, c in numbered],
        recipe=plan.recipe.model_dump(mode="json", exclude_defaults=True),
        source={"digest": index.digest, "left_out": dict(index.counts)},
        ledger=made.ledger,
        manifest_sha256=file_sha256(folder / MANIFEST),
    )


def _with_shards(
    dataset: Dataset, folder: Path, workers: int, progress: Quiet, *, root: str | None = None
) -> DatasetInfo:
    from curate.ranges import Reader

    reader = Reader(root) if root else dataset.reader()
    records = write_shards(
        dataset.table(), reader, folder, samples_per_shard=dataset.info.recipe.get("samples_per_shard", 10_000),
        workers=workers, progress=progress,
    )  # fmt: skip
    index = file_sha256(folder / SHARD_INDEX)
    return dataset.info.model_copy(update={"shards": records, "index_sha256": index})


def _finish(folder: Path, info: DatasetInfo, seconds: Seconds, fingerprint: str) -> None:
    write_atomic(folder / CARD, card(info).encode())
    record = {
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": [[name, round(spent, 3)] for name, spent in seconds],
        "fingerprint": digest(fingerprint),
        "machine": {
            "python": platform.python_version(),
            "system": platform.platform(),
            "cores": os.cpu_count(),
        },
        "versions": {name: version(name) for name in ("duckdb", "pyarrow", "pydantic")},
    }
    write_atomic(folder / BUILD, (json.dumps(record, indent=1) + "\n").encode())
    write_atomic(folder / INFO, render(info))


@contextmanager
def _told(out: Path) -> Iterator[None]:
    """Turn a full disk, and DuckDB's word for it, into an error that a person can act on."""
    try:
        yield
    except CurateError:
        raise
    except (OSError, duckdb.Error) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "space" in str(error).lower():
            raise DataError(
                f"{out}: the disk is full; nothing was published", hint="make room, then run the same command"
            ) from error
        if not isinstance(error, OSError | duckdb.IOException | duckdb.OutOfMemoryException):
            raise
        raise DataError(f"{out}: {error}", hint="nothing was published") from error
