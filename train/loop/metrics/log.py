"""The log of a run: a line on stderr, and `metrics.jsonl`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from curate.errors import MissingError, printable
from train.loop.config import LoopConfig
from train.runs import METRICS, located_write_errors

TENSORBOARD = "tensorboard"  # a folder in the run's
PLAIN_S = 30  # seconds between lines where stderr is no terminal


class Log:
    """Write a run's metrics and show them. A context manager.

    Args:
        path: the run's folder.
        config: `tensorboard` and `wandb` say where else the metrics go.
        quiet: write, and show nothing.
        writes: whether this process writes; one of the ranks does.

    Raises:
        MissingError: TensorBoard or wandb is wanted and not installed.
    """

    def __init__(self, path: Path, config: LoopConfig, *, quiet: bool = False, writes: bool = True) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._sinks = _sinks(path, config) if writes else []
        # the lines of other ranks would be the same
        self._file = open(path / METRICS if writes else os.devnull, "a", encoding="utf-8")  # noqa: SIM115
        self._total = 0
        self._last = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[summary]}"),
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
        for sink in self._sinks:
            sink.close()

    def say(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(printable(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """Begin a new bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._total = total
        self._task = self._bar.add_task(name, total=total, completed=done, summary="")

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bar.advance(self._task, count)

    def record(self, metrics: dict[str, Any]) -> None:
        """Write one line of metrics."""
        with located_write_errors(Path(self._file.name)):
            self._file.write(json.dumps(metrics) + "\n")
            self._file.flush()
        numbers = {name: value for name, value in _flat(metrics) if isinstance(value, int | float)}
        for sink in self._sinks:
            sink.write(numbers, metrics["step"])

    def step(self, metrics: dict[str, Any]) -> None:
        """Write and show the metrics of a step."""
        self.record(metrics)
        summary = (
            f"loss {metrics['loss']:.4f}  lr {metrics['lr']:.2e}  {metrics['samples_per_s']:.0f} samples/s  "
            f"{metrics['data_wait']:.0%} waiting for data"
        )
        summary += f"  MFU {metrics['mfu']:.1%}" if "mfu" in metrics else ""
        summary += f"  {metrics['memory_gb']:.1f} GB"
        if self._task is not None:
            self._bar.update(self._task, completed=metrics["step"], summary=summary)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last > PLAIN_S:
            self._last = now
            self.say(f"step {metrics['step']}/{self._total}  {summary}")


class Sink(NamedTuple):
    """Another place that metrics go to."""

    write: Callable[[dict[str, float], int], None]
    close: Callable[[], None]


def _sinks(path: Path, config: LoopConfig) -> list[Sink]:
    """Open the other places that metrics go to."""
    sinks: list[Sink] = []
    if config.tensorboard:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingError(
                "TensorBoard is not installed", hint="pip install 'curate-train[tensorboard]'"
            ) from error
        writer = SummaryWriter(str(path / TENSORBOARD))

        def write(metrics: dict[str, float], step: int) -> None:
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)

        sinks.append(Sink(write, writer.close))
    if config.wandb is not None:
        try:
            import wandb  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise MissingError("wandb is not installed", hint="pip install 'curate-train[wandb]'") from error
        name = path.resolve().name
        try:
            run = wandb.init(
                project=config.wandb,
                name=name,
                id=_own_id(path),
                resume="allow",
                dir=str(path),
                config=config.result_options(),
            )
        except getattr(wandb, "Error", ()) as error:  # no key, no such project, no answer
            raise MissingError(
                f"wandb: {error}",
                hint="`wandb login`, or set WANDB_API_KEY; WANDB_MODE=offline needs neither",
            ) from error
        sinks.append(Sink(lambda metrics, step: run.log(metrics, step=step), run.finish))
    return sinks


def _own_id(path: Path) -> str:
    """Return a name of this run that is unique in the project, and the same when the run resumes."""
    return hashlib.sha256(f"{platform.node()}:{path.resolve()}".encode()).hexdigest()[:16]


def _flat(metrics: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}/")
        elif name != "step":
            yield before + name, value
