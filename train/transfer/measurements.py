"""Transfer: a run on tasks, over shot counts, seeds and protocols, into `results.parquet`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import RecipeError
from curate.manifests import digest
from train.configs import pick_device
from train.runs import Run
from train.transfer import results
from train.transfer.metrics import scores
from train.transfer.protocols import TransferProtocol, find_protocols, settings
from train.transfer.shots import Draw, Shots, draw, parse_shots
from train.transfer.subjects import Outcome, Subject
from train.transfer.tasks import Task, open_task

VERSION = 1  # goes up when the same settings give other values; part of a cell's name


@dataclass(frozen=True)
class Cell:
    """One measurement to make."""

    run: Run
    task: Task
    shots: Shots
    seed: int
    protocol: TransferProtocol
    image_size: int

    def __str__(self) -> str:
        shots = "full" if self.shots == "full" else f"{self.shots}-shot"
        return f"{self.run.name} · {self.task.name} · {shots} · {self.protocol.name} · seed {self.seed}"

    @property
    def digest(self) -> str:
        """Names everything that decides the value, but for the device."""
        protocol = [self.protocol.name, settings(self.protocol)]
        where = [self.run.digest, self.task.name, self.task.digest, self.image_size]
        return digest(["cell", VERSION, *where, str(self.shots), self.seed, *protocol])


def transfer(
    run: Run,
    tasks: Sequence[Task | str],
    *,
    shots: Sequence[int | str] = (1, 5, 10, 20, "full"),
    seeds: int = 3,
    protocols: Sequence[str | TransferProtocol] = ("linear",),
    out: str | Path,
    device: str = "auto",
    image_size: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> pa.Table:
    """Measure what a run is worth on tasks, and return the rows of `results.parquet` for what was asked.

    Every measurement is over the whole test set, whatever the shots. What is in `out` already is not measured
    again; each cell is written when it is done. The seed decides which images are drawn, which of them are
    held out to choose by, and fine-tuning's shuffles. At full shots, then, a probe's seeds differ only by
    what is held out.

    Args:
        tasks: names (`digits`, `folder:PATH`) or Tasks. A Task keeps its decoded images for the next run.
        shots: images of each class, or "full".
        seeds: how many draws of each shot count: seeds 0, 1, 2, …
        protocols: "linear", "finetune", or such an object with settings of its own.
        out: the Parquet file to add to.
        device: "auto" takes a GPU where there is one.
        image_size: in pixels; that of the run by default.
        progress: is told a line for each measurement.

    Raises:
        RecipeError: an unknown task or protocol, shots below 1, no seeds, a path that does not fit.
        DataError: a task's data is not what a task needs, or the run's features are not finite.
        MissingError: there is no such device.
    """
    say = progress or (lambda line: None)
    out, size = Path(out), run.spec.image_size if image_size is None else image_size
    asked, found, place = parse_shots(shots), find_protocols(protocols), pick_device(device)
    if isinstance(seeds, bool) or seeds < 1:
        raise RecipeError(f"seeds: {seeds!r}", hint="the number of draws, from 1")
    if size < 1:
        raise RecipeError(f"image_size: {size!r}", hint="the side in pixels")
    results.check_path(out)
    wanted: list[str] = []
    for task in [open_task(task) if isinstance(task, str) else task for task in tasks]:
        cells = [Cell(run, task, k, seed, p, size) for k in asked for seed in range(seeds) for p in found]
        wanted += _fill(Subject(run, task, image_size=size, device=place), cells, out, say)
    return results.of_cells(results.read(out), wanted)


def _fill(subject: Subject, cells: Sequence[Cell], out: Path, say: Callable[[str], None]) -> list[str]:
    """Measure the cells that `out` does not have yet, and return the digests of all."""
    digests = [cell.digest for cell in cells]
    done = set(results.read(out)["cell"].to_pylist())
    todo = [cell for cell, name in zip(cells, digests, strict=True) if name not in done]
    if len(todo) < len(cells):
        say(
            f"{subject.run.name} · {subject.task.name}: {len(cells) - len(todo)} of {len(cells)} measured already"
        )
    for cell, rows in _measure(subject, todo, say):
        results.append(out, rows)
        say(f"{cell}: {rows[0]['value']:.2%} of {rows[0]['n']:,} ({rows[0]['seconds']:.1f} s)")
    return digests


def _measure(
    subject: Subject, cells: Sequence[Cell], say: Callable[[str], None]
) -> Iterator[tuple[Cell, list[dict[str, Any]]]]:
    """Give the rows of each cell as it is measured; nothing is decoded where there are no cells."""
    for i, cell in enumerate(cells):
        train = subject.pixels.train
        if i == 0:
            for note in subject.pixels.notes:
                say(f"{subject.task.name}: {note}")
        if cell.protocol.name == "linear":
            _ = subject.train_features, subject.test_features  # before the clock starts: all cells share them
        start = time.perf_counter()
        drawn = draw(train.keys, train.labels, cell.shots, cell.seed)
        outcome = cell.protocol.measure(subject, drawn)
        yield cell, _rows(subject, cell, drawn, outcome, time.perf_counter() - start)


def _rows(
    subject: Subject, cell: Cell, drawn: Draw, outcome: Outcome, seconds: float
) -> list[dict[str, Any]]:
    """Return the rows of one cell, one a metric."""
    dataset = cell.run.info.dataset
    common = {
        "run": cell.run.name,
        "run_digest": cell.run.digest,
        "dataset": dataset.name if dataset else None,
        "dataset_digest": dataset.digest if dataset else None,
        "task": cell.task.name,
        "task_digest": cell.task.digest,
        "shots": str(cell.shots),
        "images_per_class": None if cell.shots == "full" else cell.shots,
        "seed": cell.seed,
        "protocol": cell.protocol.name,
        "chosen": json.dumps(outcome.chosen),
        "select": outcome.select,
        "train_images": len(drawn),
        "short_classes": drawn.short_classes,
        "image_size": cell.image_size,
        "config": json.dumps(settings(cell.protocol), sort_keys=True),
        "notes": json.dumps(subject.pixels.notes),
        "device": subject.device.type,
        "seconds": seconds,
        "cell": cell.digest,
    }
    found = scores(outcome.predictions, subject.pixels.test.labels)
    return [
        common | dataclasses.asdict(score) | {"headline": score.metric == cell.task.metric} for score in found
    ]
