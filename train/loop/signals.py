"""Signals that ask a run to stop, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class Stop:
    """Note signals, so that a run stops at the end of a step; a second Ctrl-C stops at once. A context.

    SIGTERM and SIGUSR1 come from schedulers before a job's time is over, Ctrl-C from a person. A scheduler's signal may
    come twice, directly and through torchrun, so further ones change nothing. Under torchrun a signal may reach only
    torchrun itself: a rank whose torchrun is gone acts as on SIGTERM.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.signal = 0
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._wish)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heard(self) -> int:
        """Return the signal that came; 0 for none."""
        if not self.signal and self._parent is not None and os.getppid() != self._parent:
            self.signal = signal.SIGTERM
        return self.signal

    def _wish(self, number: int, frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def exit_code(number: int) -> int:
    """Return the exit code after a signal: 0 after a scheduler's; 130 after Ctrl-C."""
    return 128 + number if number == signal.SIGINT else 0


def command() -> str:
    """Return the command that resumes this run, as far as it is known."""
    import shlex

    if not (sys.argv and sys.argv[0].endswith("curate")):
        return "the same command"
    own = shlex.join(["curate", *sys.argv[1:]])
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return own
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return "the same torchrun commands"
    return f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']} --no-python {own}"
