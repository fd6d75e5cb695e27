"""For wids, the random-access reader of WebDataset shards."""

from __future__ import annotations

import json
import os
from pathlib import Path

from curate.datasets.dataset import Dataset
from curate.datasets.exports import sidecar
from curate.errors import DataError
from curate.io.files import write_atomic
from curate.io.progress import Quiet

LONGEST = 94  # characters of a key: with its extension it fits a plain header's 100 bytes


# `localname=str` reads the tars where they are. Without, wids copies them to a cache, and goes on reading the copies
# after the dataset was built again.
@sidecar(use='wids.ShardListDataset("{out}/wids.json", localname=str)', movable=True)
def wids(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write `wids.json`: each tar with its samples and bytes, named from where this file stands.

    Raises:
        DataError: a key is too long. wids reads the names of plain headers alone, and would give such samples
            the bytes of others without a word.
    """
    longest = max(dataset.table(["key"])["key"].to_pylist(), key=len)
    if len(longest) > LONGEST:
        raise DataError(
            f"{dataset.path}: wids cannot read keys of more than {LONGEST} characters ({longest!r})",
            hint="read it with webdataset, datasets or DALI",
        )
    base = os.path.relpath(str(dataset.path), out)
    shards = [
        {"url": os.path.normpath(os.path.join(base, s.file)), "nsamples": s.samples, "filesize": s.bytes}
        for s in dataset.info.shards or []
    ]
    path = out / "wids.json"
    described = {"wids_version": 1, "name": dataset.name, "shardlist": shards}
    write_atomic(path, (json.dumps(described, indent=1) + "\n").encode())
    return [path]
