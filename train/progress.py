"""What a run says while it goes on: a line on stderr, and `metrics.jsonl`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from train.runs import METRICS

PLAIN_S = 30  # seconds between lines where stderr is no terminal


class Log:
    """Write a run's metrics and show them. A context manager.

    Args:
        path: the run's folder.
        quiet: write, and show nothing.
    """

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._file = open(path / METRICS, "a", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self._total = 0
        self._last = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[said]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Log:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._file.close()

    def say(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a new bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._total = total
        self._task = self._bar.add_task(name, total=total, completed=done, said="")

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, count)

    def record(self, metrics: dict[str, Any]) -> None:
        """Write one line of metrics."""
        self._file.write(json.dumps(metrics) + "\n")
        self._file.flush()

    def step(self, metrics: dict[str, Any]) -> None:
        """Write and show the metrics of a step."""
        self.record(metrics)
        said = (
            f"loss {metrics['loss']:.4f}  lr {metrics['lr']:.2e}  {metrics['samples_per_s']:.0f} samples/s  "
            f"{metrics['data_wait']:.0%} waiting for data"
        )
        if self._task is not None:
            self._bar.update(self._task, completed=metrics["step"], said=said)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last > PLAIN_S:
            self._last = now
            self.say(f"step {metrics['step']}/{self._total}  {said}")
