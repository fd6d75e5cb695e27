"""From an overlay to a dataset with shards of its own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from curate.builds.build import Build, BuildOptions, Built
from curate.datasets.contracts import outside
from curate.datasets.dataset import MANIFEST, Dataset, open_dataset
from curate.io.executors import cores, require
from curate.io.paths import AnyPath, as_path
from curate.io.progress import Quiet
from curate.io.working import restore


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
    out = as_path(out)
    if isinstance(out, Path):
        restore(out)
    dataset = open_dataset(out)
    if dataset.sharded:
        return Built(dataset, True, time.monotonic() - began)
    options = BuildOptions(False, workers or cores(), executor, False, progress or Quiet())
    dataset.refuse_rows()
    for line in outside(dataset):
        options.progress.warn(line)
    return Sharding(dataset, options).run()


class Sharding(Build):
    """An overlay that is given shards."""

    def __init__(self, overlay: Dataset, options: BuildOptions) -> None:
        self.out, self.options, self.homes = overlay.path, options, None  # it stands in its own place
        self.overlay, self.info, self.root = overlay, overlay.info, overlay.byte_root
        self.manifest = overlay.path / MANIFEST

    def check(self) -> None:
        """Take up the work: of the set in `out` nothing goes before its successor is whole."""
        self.staging.keep = True
        self.staging.begin(self.info.plan, replaces=False)

    def rows(self) -> None:
        """Put the manifest beside the shards to be; in a store it is there."""
        self.seconds = []
        if isinstance(self.manifest, Path):
            shutil.copy2(self.manifest, self.staging.path / MANIFEST)

    def record(self) -> dict[str, Any]:
        """Return the overlay's record and the time that its shards took."""
        record = self.overlay.build_record()
        spent = [[name, round(seconds, 3)] for name, seconds in self.seconds]
        return record | {"seconds": [*record.get("seconds", []), *spent]}
