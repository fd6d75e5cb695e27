"""Transfer: runs on tasks, over shot counts, seeds and protocols, into `results.parquet`."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from curate import executors
from curate.errors import CurateError, RecipeError
from curate.manifests import digest
from train.configs import pick_device
from train.options import require_one_of
from train.runs import Run
from train.transfer import results
from train.transfer.listings import open_tasks
from train.transfer.protocols import DEFAULTS, Select, TransferProtocol, find_protocols, settings
from train.transfer.shots import FULL, Draw, Sampling, Shots, draw, parse_shots
from train.transfer.subjects import AnySubject, Outcome, Subject

VERSION = 2  # goes up when the same settings give other values; part of a cell's name
NO_IMAGES = "0"  # the shots of a protocol that learns from none


@dataclass(frozen=True)
class Cell:
    """One measurement to make."""

    run: Run
    task: Any  # Task or DetectionTask
    shots: Shots
    seed: int
    protocol: TransferProtocol
    image_size: int | None
    sampling: Sampling = "distinct"

    def __str__(self) -> str:
        shots = f"{self.shots}-shot" if isinstance(self.shots, int) else self.shots
        task = self.task.name + (f":{self.task.partition}" if self.task.partition else "")
        return f"{self.run.name} · {task} · {shots} · {self.protocol.name} · seed {self.seed}"

    @property
    def digest(self) -> str:
        """Names everything that decides the value, but for the device."""
        protocol = [self.protocol.name, settings(self.protocol)]
        where = [self.run.digest, self.task.name, self.task.digest, self.image_size]
        return digest(["cell", VERSION, *where, str(self.shots), self.seed, self.sampling, *protocol])


@dataclass(frozen=True)
class Grid:
    """What to measure a run by.

    Args:
        shots: images of each class; "full"; or "total-1000".
        seeds: how many draws of each shot count: seeds 0, 1, 2, …
        protocols: names (`knn`, `finetune:kornblith`, `knn(k=200)`) or protocols; none for the usual one of a task.
        image_size: in pixels; that of the run by default.
        sampling: what a class with fewer images than shots gives: all it has, or draws with replacement.
        select: "test" lets every protocol that chooses anything choose by the test set itself; its rows say so.
    """

    shots: Sequence[int | str] = (1, 5, 10, 20, FULL)
    seeds: int = 3
    protocols: Sequence[str | Mapping[str, Any] | TransferProtocol] = ()
    image_size: int | None = None
    sampling: str = "distinct"
    select: str | None = None

    def cells(self, run: Run, task: Any) -> list[Cell]:
        """Return the measurements of a run on a task, by the protocols that are for its kind.

        Raises:
            RecipeError: a wrong shot count, protocol, number of seeds or size.
        """
        shots = parse_shots(self.shots)
        if isinstance(self.seeds, bool) or self.seeds < 1:
            raise RecipeError(f"seeds: {self.seeds!r}", hint="the number of draws, from 1")
        if self.image_size is not None and self.image_size < 1:
            raise RecipeError(f"image_size: {self.image_size!r}", hint="the side in pixels")
        cells = []
        require_one_of(Sampling, "sampling", self.sampling)
        sampling: Sampling = self.sampling  # type: ignore[assignment]
        for protocol in self._chosen(task):
            if protocol.kind != task.kind:
                continue
            size = None if task.kind == "detection" else self.image_size or run.spec.image_size
            for k in shots if protocol.learns else shots[:1]:
                many = protocol.learns and (k != FULL or protocol.chance_at_full)
                said = k if protocol.learns else NO_IMAGES
                cells += [
                    Cell(run, task, said, seed, protocol, size, sampling)
                    for seed in range(self.seeds if many else 1)
                ]
        return cells

    def _chosen(self, task: Any) -> list[TransferProtocol]:
        found = find_protocols(self.protocols or [DEFAULTS[task.kind]])
        if self.select is None:
            return found
        require_one_of(Select, "select", self.select)
        return [
            dataclasses.replace(one, select=self.select) if hasattr(one, "select") else one  # type: ignore[type-var]
            for one in found
        ]


def _check_kinds(grids: Sequence[Grid], tasks: Sequence[Any]) -> None:
    """Refuse tasks that no protocol is for, and protocols that are for no task."""
    found = [one for grid in grids for one in find_protocols(grid.protocols or list(DEFAULTS.values()))]
    given = [one for grid in grids if grid.protocols for one in find_protocols(grid.protocols)]
    for protocol in given:
        if tasks and protocol.kind not in {task.kind for task in tasks}:
            raise RecipeError(
                f"protocol {protocol.name} is for {protocol.kind}, and task {tasks[0].name} is one of {tasks[0].kind}",
                hint=f"take {DEFAULTS[tasks[0].kind]}",
            )
    for task in tasks:
        if task.kind not in {protocol.kind for protocol in found}:
            raise RecipeError(
                f"task {task.name} is one of {task.kind}, and no protocol given is for that",
                hint=f"take {DEFAULTS[task.kind]} too",
            )


@dataclass(frozen=True)
class Job:
    """The cells of one run on one task that are to be measured: what a worker does on its own."""

    cells: Sequence[Cell]
    device: str = "auto"

    def rows(self, say: Callable[[str], None]) -> Iterator[tuple[Cell, list[dict[str, Any]]]]:
        """Give the rows of each cell as it is measured; nothing is decoded where there are no cells."""
        if not self.cells:
            return
        subject = _subject(self.cells[0], pick_device(self.device), say)
        for note in subject.notes:
            say(f"{self.cells[0].task.name}: {note}")
        for cell in self.cells:
            start = time.perf_counter()
            drawn = _draw(subject, cell)
            outcome = cell.protocol.measure(subject, drawn)
            yield cell, _rows(subject, cell, drawn, outcome, time.perf_counter() - start)


def transfer(
    run: Run,
    tasks: Sequence[Any],
    grid: Grid | Sequence[Grid] | None = None,
    *,
    out: str | Path,
    device: str = "auto",
    executor: str = "local",
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> pa.Table:
    """Measure what a run is worth on tasks, and return the rows of `results.parquet` for what was asked.

    Every measurement is over the whole test set, whatever the shots. What is in `out` already is not measured
    again; each cell is written when it is done. The seed decides which images are drawn, which of them are
    held out to choose by, and fine-tuning's shuffles. Where all images are drawn and nothing else is left to chance,
    one seed is measured.

    Args:
        run: what to measure.
        tasks: names (`digits`, `folder:PATH`) or tasks. A Task keeps its decoded images for the next run.
        grid: what to measure it by; several share what is computed once, such as frozen features.
        out: the Parquet file to add to.
        device: "auto" takes a GPU where there is one.
        executor: `local`; or `ray`, where all that frozen features of a task can tell is one piece of work, each
            fine-tuning another, with a GPU each where there are any.
        progress: is told a line for each measurement.
        changes: fields of `grid` to replace.

    Raises:
        RecipeError: an unknown task or protocol, shots below 1, no seeds, a path that does not fit.
        DataError: a task's data is not what a task needs, or the run's features are not finite.
        MissingError: there is no such device.
    """
    say = progress or (lambda line: None)
    grids = [grid or Grid()] if grid is None or isinstance(grid, Grid) else list(grid)
    out, asked = Path(out), [dataclasses.replace(one, **changes) for one in grids]
    executors.require(executor)
    if executor == "local":
        pick_device(device)
    results.check_path(out)
    opened = [one for task in tasks for one in (open_tasks(task) if isinstance(task, str) else [task])]
    _check_kinds(asked, opened)
    # finds the faults of all before the first is measured
    cells = [[cell for one in asked for cell in one.cells(run, task)] for task in opened]
    missing = [_missing(some, out, say) for some in cells]
    if executor == "ray":
        _on_ray([Job(part, device) for some in missing for part in _apart(some)], out, say)
    else:
        for some in missing:
            for cell, rows in Job(some, device).rows(say):
                _keep(cell, rows, out, say)
    return results.of_cells(results.read(out), [cell.digest for some in cells for cell in some])


def transfer_all(
    runs: Sequence[Run], tasks: Sequence[Any], grid: Grid | Sequence[Grid] | None = None, **options: Any
) -> pa.Table:
    """Measure several runs on the same tasks, as `transfer` does each: a task's images are decoded once for all."""
    opened = [one for task in tasks for one in (open_tasks(task) if isinstance(task, str) else [task])]
    return pa.concat_tables([transfer(run, opened, grid, **options) for run in runs])


def _missing(cells: Sequence[Cell], out: Path, say: Callable[[str], None]) -> list[Cell]:
    """Return the cells that `out` does not have yet."""
    done = set(results.read(out)["cell"].to_pylist())
    todo = [cell for name, cell in {cell.digest: cell for cell in cells}.items() if name not in done]
    if len(todo) < len(cells):
        first = cells[0]
        say(
            f"{first.run.name} · {first.task.name}: {len(cells) - len(todo)} of {len(cells)} measured already"
        )
    return todo


def _keep(cell: Cell, rows: list[dict[str, Any]], out: Path, say: Callable[[str], None]) -> None:
    results.append(out, rows)
    told = next((row for row in rows if row["headline"]), rows[0])
    flattered = ", chosen by the test set" if told["select"] == "test" else ""
    say(f"{cell}: {told['metric']} {told['value']:.2%} of {told['n']:,}{flattered} ({told['seconds']:.1f} s)")


def _apart(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cut a task's cells into pieces of work: what shares frozen features in one, each of the others alone."""
    sharing = [cell for cell in cells if cell.protocol.frozen]
    return [*([sharing] if sharing else []), *([cell] for cell in cells if not cell.protocol.frozen)]


def _on_ray(jobs: Sequence[Job], out: Path, say: Callable[[str], None]) -> None:
    """Do each job as a task of Ray; each one's rows are written when it is done, whatever becomes of the others."""
    failed: list[CurateError] = []
    for rows_of_job in executors.unordered(_Work(jobs), range(len(jobs)), workers=_cores(), gpus=1):
        if isinstance(rows_of_job, CurateError):
            failed.append(rows_of_job)
            continue
        lines, found = rows_of_job
        for line in lines:
            say(line)
        for cell, rows in found:
            _keep(cell, rows, out, say)
    if failed:
        raise failed[0]


def _cores() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True)
class _Work:
    """What a Ray worker is given: the jobs, of which it does one."""

    jobs: Sequence[Job] = field(repr=False)

    def __call__(self, number: int) -> Any:
        lines: list[str] = []
        try:
            return lines, list(self.jobs[number].rows(lines.append))
        except CurateError as error:
            return error


def _subject(cell: Cell, device: torch.device, say: Callable[[str], None]) -> AnySubject:
    if cell.task.kind == "detection":
        from train.transfer.detection.subjects import DetectionSubject

        return DetectionSubject(cell.run, cell.task, device=device, progress=say)
    assert cell.image_size is not None
    return Subject(cell.run, cell.task, image_size=cell.image_size, device=device)


def _draw(subject: AnySubject, cell: Cell) -> Draw:
    shots = FULL if cell.shots == NO_IMAGES else cell.shots
    return draw(subject.keys, subject.targets, shots, cell.seed, sampling=cell.sampling)


def _rows(
    subject: AnySubject, cell: Cell, drawn: Draw, outcome: Outcome, seconds: float
) -> list[dict[str, Any]]:
    """Return the rows of one cell, one a metric."""
    dataset = cell.run.info.dataset
    common = {
        "run": cell.run.name,
        "run_digest": cell.run.digest,
        "dataset": dataset.name if dataset else None,
        "dataset_digest": dataset.digest if dataset else None,
        "task": cell.task.name,
        "partition": cell.task.partition,
        "task_digest": cell.task.digest,
        "shots": str(cell.shots),
        "images_per_class": cell.shots if isinstance(cell.shots, int) else None,
        "seed": cell.seed,
        "protocol": cell.protocol.name,
        "chosen": json.dumps(outcome.chosen),
        "select": outcome.select,
        "train_images": len(drawn) if cell.protocol.learns else 0,
        "short_classes": drawn.short_classes,
        "sampling": drawn.sampling,
        "image_size": cell.image_size,
        "config": json.dumps(settings(cell.protocol), sort_keys=True),
        "per_class": json.dumps(outcome.per_class) if outcome.per_class else None,
        "notes": json.dumps([*subject.notes, *outcome.notes]),
        "device": subject.device.type,
        "seconds": seconds,
        "cell": cell.digest,
    }
    return [
        common | dataclasses.asdict(score) | {"headline": score.metric == cell.task.metric}
        for score in outcome.scores
    ]
