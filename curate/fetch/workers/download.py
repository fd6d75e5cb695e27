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
import threading
import time
from collections import Counter
from functools import cache, partial
from pathlib import Path
from typing import Any

from curate.fetch.workers.imports import spared

with spared():
    from img2dataset import downloader

from curate.fetch.http.transfer import Fetcher
from curate.fetch.limits import Guards
from curate.io.web.outcomes import OK, Failure

BEAT_S = 0.5  # between two reports of how far a process is

Row = tuple[int, str]
Answer = tuple[int, io.BytesIO | None, str | None]


class GuardedDownloader(downloader.Downloader):
    """img2dataset's downloader of shards, whose every transfer is held to `Guards`.

    Args:
        guards: the limits.
        beats: the folder for reports of how far each process is.
        hashes_only: keep the sha256 of the bytes in their place.
    """

    def __init__(self, *args: Any, guards: Guards, beats: str, hashes_only: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guards, self.beats, self.hashes_only = guards, beats, hashes_only

    def download_shard(self, row: Any) -> None:
        """Download a shard, as img2dataset does, by our transfers."""
        # Of these a process has one each. Made here, for among the threads of a shard several would be the first.
        fetcher, beats = _fetcher(self.guards), _beats(self.beats)
        downloader.download_image_with_retry = partial(self._transfer, fetcher, beats)
        super().download_shard(row)

    def _transfer(self, fetcher: Fetcher, beats: Beats, row: Row, **_: Any) -> Answer:
        """Fetch the image of a row; takes the place of img2dataset's `download_image_with_retry`.

        It raises nothing: its queue waits for a row to end, and img2dataset would wait for its queue for ever.
        """
        number, url = row
        try:
            data = fetcher.fetch(url)
        except Exception as error:  # a fault of ours, too, must cost one row and not the shard
            told = f"{type(error).__name__} {error}"
            failure = error if isinstance(error, Failure) else Failure("other", told)
            beats.count(failure.reason, 0)
            return number, None, str(failure)
        beats.count(OK, len(data))
        if self.hashes_only:
            data = hashlib.sha256(data).hexdigest().encode()
        return number, io.BytesIO(data), None


@cache
def _fetcher(guards: Guards) -> Fetcher:
    return Fetcher(guards)


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
