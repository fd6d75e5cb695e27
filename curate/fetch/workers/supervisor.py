"""The watch over a download in another process: how far it is, whether it still moves, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curate.fetch.workers.process import CODE
from curate.io.progress import Quiet
from curate.io.web.outcomes import OK

LOOK_S = 0.25  # between two looks at the process
TELL_S = 1.0  # between two lines of progress
GRACE_S = 2.0  # from the request to end to the end by force
# What img2dataset imports would ask the network for newer releases.
NO_UPDATE_CHECKS = {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
SPARK = {"PYSPARK_PYTHON": sys.executable}  # Spark's workers would run the first Python on the path
STARTING_S = 120.0  # importing img2dataset on a slow disk


@dataclass(frozen=True)
class Pace:
    """How far a download is.

    Args:
        reasons: outcome → transfers that ended so.
        bytes: of images.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    @property
    def rows(self) -> int:
        """How many transfers ended."""
        return self.reasons.total()

    def line(self, seconds: float) -> str:
        """Return rows and bytes a second, the success rate, and the failures, the most frequent first."""
        failed = [f"{n:,} {reason}" for reason, n in self.reasons.most_common() if reason != OK]
        share = self.reasons[OK] / max(self.rows, 1)
        rates = f"{self.rows / seconds:,.0f} URLs/s, {self.bytes / seconds / 1e6:,.1f} MB/s, {share:.1%} ok"
        return f"{rates}; {', '.join(failed[:4])}" if failed else rates


def pace(beats: Path) -> Pace:
    """Add up the reports of all processes."""
    reasons: Counter[str] = Counter()
    size = 0
    for file in beats.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):  # it is just being replaced
            report = json.loads(file.read_text())
            reasons.update(report["reasons"])
            size += report["bytes"]
    return Pace(reasons, size)


def supervise(
    command: Sequence[str],
    *,
    beats: Path,
    log: Path,
    stall_s: float,
    total: int,
    progress: Quiet,
    look: Callable[[], None] = lambda: None,
) -> str | None:
    """Run a command to its end and return what went wrong: None, "hung" or "exit code N".

    It leads a process group, which is ended with it, also when this process is interrupted. What it prints goes to
    the log.

    Args:
        beats: the folder in which its processes report.
        stall_s: how long no transfer may end before all are taken for hung.
        total: rows, for the progress.
        look: called now and then meanwhile, to take over what is finished.
    """
    began = moved = time.monotonic()
    seen = shown = 0
    spoke, first = began, 0.0
    with open(log, "ab") as stream, progress.stage("fetching", total) as stage:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, stdin=subprocess.PIPE, start_new_session=True,
            env=SPARK | os.environ | NO_UPDATE_CHECKS,
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(LOOK_S)
                look()
                now, far = time.monotonic(), pace(beats)
                if far.rows != seen:
                    first = first or now - LOOK_S  # the start of img2dataset is not counted
                    seen, moved = far.rows, now
                if now - spoke >= TELL_S and far.rows:
                    stage.advance(far.rows - shown)
                    stage.tell(far.line(now - (first or began)))
                    shown, spoke = far.rows, now
                if now - moved > (stall_s if seen else stall_s + STARTING_S):
                    return "hung"
            stage.advance(pace(beats).rows - shown)
        finally:
            end(process)
    return None if process.returncode == 0 else f"exit code {process.returncode}"


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group: first by request, then by force."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
        os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def command(job: Path) -> list[str]:
    """Return the command that runs a job."""
    return [sys.executable, "-c", CODE, str(job)]
