"""`python -m curate.fetch.child JOB`: run img2dataset over a table of URLs, guarded, until all is tried.

It runs in a process of its own, which leads a process group: whoever started it can end all of it at once, and
when that one is gone it ends itself.
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from curate.fetch.guards import Guards


class NoLogger:
    """In the place of img2dataset's logger, a process that would outlive a parent that is killed."""

    def __init__(self, *_: Any) -> None:
        self.done_shards: set[int] = set()

    def start(self) -> None:
        """Do nothing."""

    def join(self) -> None:
        """Do nothing."""

    def terminate(self) -> None:
        """Do nothing."""


def run(job: dict[str, Any]) -> None:
    """Run img2dataset as a job says; see `rounds.job`."""
    from curate.fetch.workers import GuardedDownloader, end_with_parent

    main: Any = importlib.import_module("img2dataset.main")  # the package has a function of that name
    end_with_parent()
    guards = Guards(**job["guards"])
    main.LoggerProcess = NoLogger
    main.Downloader = partial(
        GuardedDownloader, guards=guards, beats=job["beats"], hashes_only=job["hashes_only"]
    )
    main.download(
        url_list=job["table"],
        output_folder=job["out"],
        input_format="parquet",
        url_col="url",
        caption_col="caption",
        save_additional_columns=["row"],
        output_format="webdataset",
        disable_all_reencoding=True,
        extract_exif=False,
        compute_hash=None,
        processes_count=job["processes"],
        thread_count=job["threads"],
        number_sample_per_shard=job["samples_per_shard"],
        distributor=job["distributor"],
        retries=0,
        max_shard_retry=1,
    )


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
