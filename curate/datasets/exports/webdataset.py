"""For the webdataset library and for trainers that read shards with it."""

from __future__ import annotations

import json
from pathlib import Path

from curate.datasets.dataset import Dataset
from curate.datasets.exports import sidecar
from curate.io.files import inside, write_atomic
from curate.io.progress import Quiet


@sidecar(use='webdataset.WebDataset("{path}/{shards}.tar", shardshuffle=False)')
def webdataset(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write `shards/sizes.json`: the samples of each tar by its name, where open_clip and its kin look for it."""
    sizes = {Path(record.file).name: record.samples for record in dataset.info.shards or []}
    path = inside(out, "shards/sizes.json")
    write_atomic(path, (json.dumps(sizes, indent=1) + "\n").encode())
    return [path]
