"""From a recipe to a dataset on disk."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from curate.builds.plan import Plan, plan
from curate.builds.shards.resizing import gains, resize_record
from curate.builds.shards.writing import Layout, write_shards
from curate.builds.steps import Manifest, Seconds, make_manifest
from curate.datasets.cards import write_card
from curate.datasets.dataset import (
    BUILD,
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
from curate.datasets.staging import RemoteStaging, Staging, disk_errors, staged
from curate.errors import DataError, RecipeError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import cores, require
from curate.io.files import write_atomic
from curate.io.paths import AnyPath, RemotePath, as_path, sizes
from curate.io.progress import Quiet
from curate.io.records import environment
from curate.io.stores import is_remote
from curate.recipes.fields import Resize
from curate.recipes.recipe import Recipe
from curate.rows.manifest import digest


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
    if overlay and any(member.resize for member in family):
        raise RecipeError(
            f"{recipe.where}: resize makes new bytes, and an overlay has none of its own",
            hint="leave out --overlay, or the recipe's `resize`",
        )
    options = BuildOptions(overlay, workers or cores(), executor, replace, progress or Quiet())
    plans = [plan(member) for member in family]  # find every fault before the first is built
    for line in dict.fromkeys(line for p in plans for line in p.source.outside):
        options.progress.warn(line)
    if not overlay and (bare := next((p for p in plans if not p.source.has_bytes), None)):
        raise RecipeError(
            f"{bare.recipe.where}: rows of a table are URLs, and have no bytes to make shards of",
            hint=f"use --overlay, then `curate fetch {out} --out POOL` and build from the pool",
        )
    return [Build(p, out / p.recipe.name if recipe.family else out, options).run() for p in plans]


@dataclass(frozen=True)
class BuildOptions:
    """How a build goes about it; see `build`."""

    overlay: bool
    workers: int
    executor: str
    replace: bool
    progress: Quiet


class Build:
    """A set on its way from a plan to a folder: `check`, `rows`, `shards` and `publish`, in this order.

    Attributes:
        homes: where the source lies, which is not to be replaced.
        staging: the working folder, which becomes the set.
        overlay: the set as it is without shards; known after `rows`, as are the next four.
        manifest: the file of the rows, where all who write shards see it.
        root: what the files of the rows are relative to.
        info: what `dataset.json` will say.
        seconds: the time of each step so far.
        resizing: what making images smaller gained; None where none were.
    """

    staging: Staging | RemoteStaging
    overlay: Dataset
    manifest: AnyPath
    root: str
    info: DatasetInfo
    seconds: Seconds
    resizing: dict[str, Any] | None = None

    def __init__(self, plan: Plan, out: AnyPath, options: BuildOptions) -> None:
        self.plan, self.out, self.options = plan, out, options
        self.homes: list[str] | None = plan.source.homes

    def run(self) -> Built:
        """Make the set, unless it is there and up to date."""
        began = time.monotonic()
        with disk_errors(self.out), staged(self.out, self.homes) as self.staging:
            current = self.check()
            if current is None:
                self.rows()
                if not self.options.overlay:
                    self.shards()
                self.publish()
        seconds = time.monotonic() - began
        return Built(current or open_dataset(self.out), current is not None, seconds)

    def check(self) -> Dataset | None:
        """Index the source; return the set in `out` if it is that of the plan and this source."""
        source = self.plan.source
        with self.options.progress.stage("reading the source") as stage:
            self.fingerprint = source.fingerprint()
            self.index = source.index(fingerprint=self.fingerprint, progress=stage.advance)
        self.digest = self.plan.digest(self.index.digest)
        present = self._present()
        if present and (self.options.overlay or present.sharded) and self._is_current(present):
            self.staging.tidy()
            return present
        self.staging.keep = True
        self.staging.begin(digest([self.digest, self.fingerprint, self.options.overlay]))
        return None

    def _present(self) -> Dataset | None:
        """Return the dataset in `out`, if any; refuse one of another name."""
        name = self.plan.recipe.name
        if not (self.out / INFO).exists():
            return None
        try:
            present = open_dataset(self.out)
        except DataError:
            return None  # damaged: this build puts it right
        if present.name != name and not self.options.replace:
            raise RecipeError(
                f"{self.out}: holds the dataset {present.name!r}, not {name!r}; nothing was touched",
                hint="choose another --out, or use --replace",
            )
        return present

    def _is_current(self, present: Dataset) -> bool:
        shards = present.info.shards
        files = {MANIFEST} if shards is None else {MANIFEST, SHARD_INDEX, *(s.file for s in shards)}
        whole = files <= sizes(present.path).keys()
        seen = present.build_record().get("fingerprint")
        return whole and present.info.plan == self.digest and seen == digest(self.fingerprint)

    def rows(self) -> None:
        """Run the steps over the source's rows, and write the manifest."""
        folder, out = self.staging.path, self.staging.out
        made = make_manifest(self.plan, self.index, folder, progress=self.options.progress)
        self.seconds, self.root = made.seconds, self.plan.source.root
        self.info, self.manifest = self._described(made), folder / MANIFEST
        self.overlay = Dataset(folder, self.info)
        if isinstance(out, RemotePath) and self.options.executor != "local" and not self.options.overlay:
            self.manifest = out / MANIFEST  # shards are written on machines that see the store alone
            write_atomic(self.manifest, (folder / MANIFEST).read_bytes())

    def _described(self, made: Manifest) -> DatasetInfo:
        near = not is_remote(self.root) and isinstance(self.out, Path)
        recipe = self.plan.recipe.model_dump(mode="json", exclude_defaults=True)
        classes = [
            ClassRecord(index=i, name=c.name, wnid=c.wnid, fine=list(c.fine))
            for i, c in enumerate(made.classes)
        ]
        return DatasetInfo(
            name=self.plan.recipe.name,
            digest=set_digest(made.digest, recipe),
            plan=self.digest,
            rows=made.rows,
            bytes=made.bytes,
            root=os.path.relpath(self.root, str(self.out.resolve())) if near else self.root,
            columns=made.columns,
            classes=classes,
            recipe=recipe,
            source={"digest": self.index.digest, "left_out": dict(self.index.counts)},
            ledger=made.ledger,
            manifest_sha256=file_sha256(self.staging.path / MANIFEST),
        )

    def shards(self) -> None:
        """Write the shards."""
        began = time.monotonic()
        self.overlay.refuse_unfetched()
        recipe, ledger = self.info.recipe, self.info.ledger
        resize = Resize(**recipe["resize"]) if recipe.get("resize") else None
        layout = Layout(
            samples_per_shard=recipe.get("samples_per_shard", 10_000),
            bytes_per_shard=recipe.get("bytes_per_shard"),
            resize=resize,
            hashed=self.overlay.hashed,
        )
        folder = self.staging.target
        with ByteRangeReader(self.root) as reader:
            written = write_shards(
                self.manifest, reader, folder, layout,
                workers=self.options.workers, executor=self.options.executor, progress=self.options.progress,
            )  # fmt: skip
            update: dict[str, Any] = {
                "shards": written.records,
                "index_sha256": file_sha256(folder / SHARD_INDEX),
            }
            if resize and (total := written.resized):
                update |= {
                    "bytes": total.bytes_after,
                    "ledger": [*ledger, resize_record(resize, self.info, total)],
                }
                self.resizing = gains(total, self.overlay.table(), reader, folder)
        self.info = self.info.model_copy(update=update)
        self.seconds.append(["shards", time.monotonic() - began])

    def publish(self) -> None:
        """Write the documents beside the rows, `dataset.json` last, and put all in the set's place."""
        folder = self.staging.path
        write_card(folder, self.info, self.manifest)
        write_atomic(folder / BUILD, (json.dumps(self.record(), indent=1) + "\n").encode())
        write_atomic(folder / INFO, render(self.info))
        self.staging.publish()

    def record(self) -> dict[str, Any]:
        """Return when, where and how long the set was made, and the state of the source."""
        return {
            "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": [[name, round(spent, 3)] for name, spent in self.seconds],
            "fingerprint": digest(self.fingerprint),
            **({"resize": self.resizing} if self.resizing else {}),
            **environment("duckdb", "pyarrow", "pydantic"),
        }
