"""From a recipe to a dataset on disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb

from curate.builds.plan import Plan, plan
from curate.builds.shards.resizing import gains, resize_record
from curate.builds.shards.writing import Layout, write_shards
from curate.builds.steps import Made, Seconds, make_manifest
from curate.datasets.contracts import outside
from curate.datasets.dataset import (
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
    set_digest,
)
from curate.datasets.exports.huggingface import described
from curate.datasets.staging import RemoteStaging, Staging, refuse_foreign, refuse_source, restore, staged
from curate.errors import CurateError, DataError, RecipeError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import cores, require
from curate.io.files import write_atomic
from curate.io.paths import AnyPath, RemotePath, as_path, local_copy, sizes
from curate.io.progress import Quiet
from curate.io.records import environment
from curate.io.stores import is_remote
from curate.recipes.fields import Resize
from curate.recipes.recipe import Recipe
from curate.rows.manifest import digest
from curate.sources import Index


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
    out: str | AnyPath,
    *,
    overlay: bool = False,
    workers: int | None = None,
    executor: str = "local",
    replace: bool = False,
    progress: Quiet | None = None,
) -> list[Built]:
    """Build what a recipe says into a folder; a matrix, each set into a folder of its own below it.

    Nothing stands in the folder until the set is finished. A set that is there and up to date is left alone; a
    build that was killed goes on where it was, and ends with the same bytes. In a store, where nothing can be
    renamed, a set that is to be replaced is gone from the moment that its successor's first shard is written.

    Args:
        out: the dataset's folder, or a URL such as `s3://bucket/prefix`.
        overlay: leave the bytes where they are instead of copying them into shards.
        workers: threads that write shards; one a core by default. They change nothing but the time.
        executor: what writes the shards: `local` (threads) or `ray` (tasks, whose workers see the same paths).
        replace: whether to replace a dataset of another name that stands in `out`.

    Raises:
        RecipeError: the recipe is wrong, or `out` holds something else.
        DataError: the rows do not allow a step, break a promise of `expect`, or cannot be read.
        MissingError: the executor, or the store's driver, is not installed.
    """
    out = as_path(out)
    require(executor)
    family = recipe.family or (recipe,)
    if overlay and any(one.resize for one in family):
        raise RecipeError(
            f"{recipe.where}: resize makes new bytes, and an overlay has none of its own",
            hint="leave out --overlay, or the recipe's `resize`",
        )
    how = How(overlay, workers or cores(), executor, replace, progress or Quiet())
    plans = [plan(one) for one in family]  # find every fault before the first is built
    for line in dict.fromkeys(told for p in plans for told in p.source.outside):
        how.progress.warn(line)
    if not overlay and (bare := next((p for p in plans if not p.source.has_bytes), None)):
        raise RecipeError(
            f"{bare.recipe.where}: rows of a table are URLs, and have no bytes to make shards of",
            hint=f"use --overlay, then `curate fetch {out} --out POOL` and build from the pool",
        )
    return [_build(p, out / p.recipe.name if recipe.family else out, how) for p in plans]


@dataclass(frozen=True)
class How:
    """How a build goes about it; see `build`."""

    overlay: bool
    workers: int
    executor: str
    replace: bool
    progress: Quiet


def shard(
    out: str | AnyPath,
    *,
    workers: int | None = None,
    executor: str = "local",
    progress: Quiet | None = None,
) -> Built:
    """Give an overlay its shards, as `build` without `overlay` would have.

    Raises:
        RecipeError: there is no dataset.
        DataError: the pool that the overlay points into has changed or is gone.
    """
    began = time.monotonic()
    require(executor)
    restore(as_path(out))
    dataset = open_dataset(out)
    if dataset.sharded:
        return Built(dataset, True, time.monotonic() - began)
    dataset.refuse_rows()
    for line in outside(dataset):
        (progress or Quiet()).warn(line)
    how = How(False, workers or cores(), executor, False, progress or Quiet())
    with disk_told(dataset.path), staged(dataset.path) as staging:
        staging.keep = True
        staging.begin(dataset.info.plan, replaces=False)
        if isinstance(dataset.path, Path):
            shutil.copy2(dataset.path / MANIFEST, staging.work / MANIFEST)
        started = time.monotonic()
        info, _ = _with_shards(dataset, dataset.path / MANIFEST, dataset.byte_root, staging, how)
        record = dataset.build_record()
        spent = ["shards", round(time.monotonic() - started, 3)]
        _write_record(staging.work, record | {"seconds": [*record.get("seconds", []), spent]})
        write_atomic(staging.work / CARD, _card(info, dataset.path / MANIFEST))
        write_atomic(staging.work / INFO, render(info))
        staging.publish()
    return Built(open_dataset(out), False, time.monotonic() - began)


def _build(plan: Plan, out: AnyPath, how: How) -> Built:
    began = time.monotonic()
    with disk_told(out):
        restore(out)
        refuse_foreign(out)
        for home in plan.source.homes:
            refuse_source(out, home)
    with disk_told(out), staged(out) as staging:
        with how.progress.stage("reading the source") as stage:
            fingerprint = plan.source.fingerprint()
            index = plan.source.index(fingerprint=fingerprint, progress=stage.advance)
        wanted = plan.digest(index.digest)
        there = _there(out, plan.recipe.name, how.replace)
        if there and (how.overlay or there.sharded) and _is_current(there, wanted, fingerprint):
            staging.tidy()
            return Built(there, True, time.monotonic() - began)
        staging.keep = True
        staging.begin(digest([wanted, fingerprint, how.overlay]))
        made = make_manifest(plan, index, staging.work, progress=how.progress)
        info = _describe(plan, index, made, staging.work, wanted, out)
        seconds, resizing = made.seconds, None
        if not how.overlay:
            started = time.monotonic()
            dataset, manifest = Dataset(staging.work, info), _shown(staging, how)
            info, resizing = _with_shards(dataset, manifest, plan.source.root, staging, how)
            seconds.append(["shards", time.monotonic() - started])
        _finish(staging.work, info, seconds, fingerprint, resizing)
        staging.publish()
    return Built(open_dataset(out), False, time.monotonic() - began)


def _shown(staging: Staging | RemoteStaging, how: How) -> AnyPath:
    """Return the manifest where those who write the shards find it."""
    manifest = staging.work / MANIFEST
    if (
        isinstance(staging.path, RemotePath) and how.executor != "local"
    ):  # on machines that see the store alone
        write_atomic(staging.path / MANIFEST, manifest.read_bytes())
        return staging.path / MANIFEST
    return manifest


def _is_current(there: Dataset, wanted: str, fingerprint: str) -> bool:
    seen = there.build_record().get("fingerprint")
    shards = {SHARD_INDEX, *(s.file for s in there.info.shards)} if there.info.shards is not None else set()
    whole = {MANIFEST, *shards} <= sizes(there.path).keys()
    return whole and there.info.plan == wanted and seen == digest(fingerprint)


def _there(out: AnyPath, name: str, replace: bool) -> Dataset | None:
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
            hint="choose another --out, or use --replace",
        )
    return there


def _describe(plan: Plan, index: Index, made: Made, folder: Path, wanted: str, out: AnyPath) -> DatasetInfo:
    root = plan.source.root
    near = not is_remote(root) and isinstance(out, Path)
    numbered = enumerate(made.classes)
    recipe = plan.recipe.model_dump(mode="json", exclude_defaults=True)
    return DatasetInfo(
        name=plan.recipe.name,
        digest=set_digest(made.digest, recipe),
        plan=wanted,
        rows=made.rows,
        bytes=made.bytes,
        root=os.path.relpath(root, str(out.resolve())) if near else root,
        columns=made.columns,
        classes=[ClassRecord(index=i, name=c.name, wnid=c.wnid, fine=list(c.fine)) for i, c in numbered],
        recipe=recipe,
        source={"digest": index.digest, "left_out": dict(index.counts)},
        ledger=made.ledger,
        manifest_sha256=file_sha256(folder / MANIFEST),
    )


def _with_shards(
    dataset: Dataset, manifest: AnyPath, root: str, staging: Staging | RemoteStaging, how: How
) -> tuple[DatasetInfo, dict[str, Any] | None]:
    """Write the shards; return what the dataset is then, and what resizing gained."""
    info, recipe = dataset.info, dataset.info.recipe
    resize = Resize(**recipe["resize"]) if recipe.get("resize") else None
    layout = Layout(
        samples_per_shard=recipe.get("samples_per_shard", 10_000),
        bytes_per_shard=recipe.get("bytes_per_shard"),
        resize=resize,
        # A column of that name from elsewhere may be of other bytes.
        hashed=any(s.step == "hashes" and "sha256" in s.columns_added for s in info.ledger),
    )
    dataset.reader().close()  # refuses rows without bytes
    with ByteRangeReader(root) as reader:
        written = write_shards(
            manifest, reader, staging.path, layout,
            workers=how.workers, executor=how.executor, progress=how.progress,
        )  # fmt: skip
        index = file_sha256(staging.path / SHARD_INDEX)
        info = info.model_copy(update={"shards": written.records, "index_sha256": index})
        if not resize:
            return info, None
        total = written.resized
        update = {"bytes": total.bytes_after, "ledger": [*info.ledger, resize_record(resize, info, total)]}
        return info.model_copy(update=update), gains(total, dataset.table(), reader, staging.path)


def _card(info: DatasetInfo, manifest: AnyPath) -> bytes:
    with local_copy(manifest) as here:
        return described(info, here).encode()


def _finish(
    folder: Path, info: DatasetInfo, seconds: Seconds, fingerprint: str, resizing: dict[str, Any] | None
) -> None:
    write_atomic(folder / CARD, _card(info, folder / MANIFEST))
    record = {
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": [[name, round(spent, 3)] for name, spent in seconds],
        "fingerprint": digest(fingerprint),
        **({"resize": resizing} if resizing else {}),
        **environment("duckdb", "pyarrow", "pydantic"),
    }
    _write_record(folder, record)
    write_atomic(folder / INFO, render(info))


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    write_atomic(folder / BUILD, (json.dumps(record, indent=1) + "\n").encode())


@contextmanager
def disk_told(out: AnyPath) -> Iterator[None]:
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
