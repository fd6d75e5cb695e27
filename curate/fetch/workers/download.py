"""What runs inside img2dataset's processes: its downloader, with a guarded transfer in the place of its own.

Imported only where img2dataset is about to run, for it takes seconds. The processes that it starts import this module
to unpickle the downloader, and so are guarded too, under any of its distributors.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from curate.fetch.http.transfer import Fetcher
from curate.fetch.limits import FetchLimits
from curate.io.web.outcomes import OK, Failure

ABSENT = ("torch",)  # webdataset does without
EMPTY = ("wandb", "albumentations")  # imported by name, and looked into only for logging and resizing


@contextmanager
def without_unused() -> Iterator[None]:
    """Import without these modules, unless they are there already.

    torch (through webdataset), wandb and albumentations make five of six seconds of img2dataset's start, and 300 MB of
    each of its processes; a guarded download uses none of them.
    """
    new: dict[str, ModuleType | None] = dict.fromkeys(ABSENT) | {n: ModuleType(n) for n in EMPTY}
    new = {name: module for name, module in new.items() if name not in sys.modules}
    sys.modules.update(new)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in new:
            del sys.modules[name]


with without_unused():
    from img2dataset import downloader


BEAT_S = 0.5  # between two reports of how far a process is

Row = tuple[int, str]
Result = tuple[int, io.BytesIO | None, str | None]


class GuardedDownloader(downloader.Downloader):
    """img2dataset's downloader of shards, whose every transfer is held to `FetchLimits`.

    Args:
        limits: of each transfer.
        beats: the folder for reports of how far each process is.
        hashes_only: keep the sha256 of the bytes in their place.
    """

    def __init__(self, *args: Any, limits: FetchLimits, beats: str, hashes_only: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits, self.beats, self.hashes_only = limits, beats, hashes_only

    def download_shard(self, row: Any) -> None:
        """Download a shard, as img2dataset does, by our transfers."""
        # Of these a process has one each. Made here, for among the threads of a shard several would be the first.
        fetcher, beats = _fetcher(self.limits), _beats(self.beats)
        downloader.download_image_with_retry = partial(self._transfer, fetcher, beats)
        super().download_shard(row)

    def _transfer(self, fetcher: Fetcher, beats: Beats, row: Row, **_: Any) -> Result:
        """Fetch the image of a row; takes the place of img2dataset's `download_image_with_retry`.

        It raises nothing: its queue waits for a row to end, and img2dataset would wait for its queue for ever.
        """
        number, url = row
        try:
            data = fetcher.fetch(url)
        except Exception as error:  # a fault of ours, too, must cost one row and not the shard
            message = f"{type(error).__name__} {error}"
            failure = error if isinstance(error, Failure) else Failure("other", message)
            beats.count(failure.reason, 0)
            return number, None, str(failure)
        beats.count(OK, len(data))
        if self.hashes_only:
            data = hashlib.sha256(data).hexdigest().encode()
        return number, io.BytesIO(data), None


@cache
def _fetcher(limits: FetchLimits) -> Fetcher:
    return Fetcher(limits)


class Beats:
    """Reports how many transfers this process has ended, for what reason, and their bytes.

    Args:
        folder: gets a file for this process.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / f"{socket.gethostname()}-{os.getpid()}.json"
        self.reasons: Counter[str] = Counter()
        self.bytes = 0
        self._lock = threading.Lock()
        self._last = 0.0

    def count(self, reason: str, size: int) -> None:
        """Count a transfer that ended; a report that cannot be written waits for the next."""
        with self._lock:
            self.reasons[reason] += 1
            self.bytes += size
            if time.monotonic() - self._last >= BEAT_S:
                self._last = time.monotonic()
                beside = self.path.with_suffix(".tmp")
                with contextlib.suppress(OSError):
                    beside.write_text(json.dumps({"reasons": self.reasons, "bytes": self.bytes}))
                    os.replace(beside, self.path)


@cache
def _beats(folder: str) -> Beats:
    return Beats(folder)
