"""The process that runs img2dataset over a table of URLs, guarded, until all is tried.

It leads a process group: whoever started it can end all of it at once. When that one is gone, by whatever end, the pipe
between them closes, and it ends itself and its group.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

# What runs it. The current folder must not be on the path: a `queue.py` that lies there would be imported.
CODE = "import sys; sys.path[:] = [p for p in sys.path if p]; from curate.fetch.workers.process import main; main()"


def main() -> None:
    """Run the job whose file is named on the command line."""
    threading.Thread(target=_end_with_parent, daemon=True).start()  # before anything that takes time
    run(json.loads(Path(sys.argv[1]).read_text()))


def _end_with_parent() -> None:
    while os.read(0, 1024):  # it never writes: what is read is the end
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


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
    """Run img2dataset as a job says; see `passes.run`."""
    from curate.fetch.limits import FetchLimits
    from curate.fetch.workers.download import GuardedDownloader

    img2dataset: Any = importlib.import_module("img2dataset.main")  # the package has a function of that name
    img2dataset.LoggerProcess = NoLogger
    img2dataset.Downloader = partial(
        GuardedDownloader,
        limits=FetchLimits(**job["guards"]),
        beats=job["beats"],
        hashes_only=job["hashes_only"],
    )
    img2dataset.download(
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
