"""Measure runs on tasks, job by job, in this process or on Ray, into `results.parquet`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from curate.errors import CurateError
from curate.io import executors
from curate.io.executors import cores
from train.loop.devices import pick_device
from train.runs import Run
from train.transfer import results
from train.transfer.features import ProtocolResult, RunFeatures, RunOnTask
from train.transfer.measurements import VERSION, Grid, Measurement, check_kinds
from train.transfer.shots import TrainSubset
from train.transfer.tasks.datasets import open_tasks

Say = Callable[[str], None]
Rows = list[dict[str, Any]]  # of results: a row a metric


def transfer(
    runs: Run | Sequence[Run],
    tasks: Sequence[Any],
    grid: Grid | Sequence[Grid] | None = None,
    *,
    out: str | Path,
    device: str = "auto",
    executor: str = "local",
    progress: Say | None = None,
    **changes: Any,
) -> pa.Table:
    """Measure runs on tasks, and return the rows of `results.parquet` for these measurements.

    Every measurement is over the whole test set, whatever the shots. What is in `out` already is not measured
    again; each measurement is written when it is done. The seed decides which images are drawn, which of them are
    held out for validation, and fine-tuning's shuffles. Where all images are drawn and nothing else is left to chance,
    one seed is measured.

    Args:
        runs: one or several.
        tasks: names (`digits`, `folder:PATH`) or tasks. A Task keeps its decoded images for the next run.
        grid: shots, seeds and protocols; several grids share what is computed once, such as frozen features.
        out: the Parquet file to add to.
        device: "auto" takes a GPU where there is one.
        executor: `local`; or `ray`, where each fine-tuning is a job of its own, and all protocols on frozen features of
            one run and task are one job; each job has a GPU where there are any.
        progress: gets a line for each measurement.
        changes: fields of `grid` to replace.

    Raises:
        RecipeError: an unknown task or protocol, shots below 1, no seeds, a path that does not fit.
        DataError: a task's data is damaged, or the run's features are not finite.
        MissingError: there is no such device, or `out` cannot be written.
    """
    say = progress or (lambda line: None)
    grids = [grid or Grid()] if grid is None or isinstance(grid, Grid) else list(grid)
    grids, out = [dataclasses.replace(each, **changes) for each in grids], Path(out)
    executors.require(executor)
    if executor == "local":
        pick_device(device)
    results.check_path(out)
    opened = [each for task in tasks for each in (open_tasks(task) if isinstance(task, str) else [task])]
    check_kinds(grids, opened)
    pairs = [(run, task) for run in ([runs] if isinstance(runs, Run) else runs) for task in opened]
    # Finds the faults of all before the first is measured.
    wanted = [[m for each in grids for m in each.measurements(run, task)] for run, task in pairs]
    done = set(results.read(out)["cell"].to_pylist())
    missing = [_missing(measurements, done, say) for measurements in wanted]
    jobs = [job for each in missing for job in make_jobs(each, device, small=executor == "ray")]
    run_jobs = run_on_ray if executor == "ray" else run_local
    run_jobs(jobs, lambda measurement, rows: _save(measurement, rows, out, say), say)
    digests = {measurement.digest for measurements in wanted for measurement in measurements}
    return results.rows_of_measurements(results.read(out), digests)


def _missing(wanted: Sequence[Measurement], done: Collection[str], say: Say) -> list[Measurement]:
    """Return the measurements whose digests are not among those done, each once."""
    by_digest = {measurement.digest: measurement for measurement in wanted}
    missing = [measurement for name, measurement in by_digest.items() if name not in done]
    measured = len(by_digest) - len(missing)
    if measured:
        first = wanted[0]
        say(f"{first.run.name} · {first.task.name}: {measured} of {len(by_digest)} measured already")
    return missing


def _save(measurement: Measurement, rows: Rows, out: Path, say: Say) -> None:
    results.append(out, rows)
    row = next((row for row in rows if row["headline"]), rows[0])
    flattered = ", chosen by the test set" if row["select"] == "test" else ""
    say(
        f"{measurement}: {row['metric']} {row['value']:.2%} of {row['n']:,}{flattered} ({row['seconds']:.1f} s)"
    )


@dataclass(frozen=True)
class Job:
    """Measurements of one run on one task at one image size: what a worker does on its own."""

    measurements: Sequence[Measurement]
    device: str = "auto"

    def rows(self, say: Say) -> Iterator[tuple[Measurement, Rows]]:
        """Yield the rows of each measurement as it is made."""
        run_on_task = _run_on_task(self.measurements[0], pick_device(self.device), say)
        for note in run_on_task.notes:
            say(f"{self.measurements[0].task.name}: {note}")
        for measurement in self.measurements:
            start = time.perf_counter()
            subset = measurement.draw(run_on_task)
            result = measurement.protocol.measure(run_on_task, subset)
            seconds = time.perf_counter() - start
            yield measurement, _rows(run_on_task, measurement, subset, result, seconds)


def make_jobs(measurements: Sequence[Measurement], device: str, *, small: bool = False) -> list[Job]:
    """Divide the measurements of a run on a task into jobs.

    Args:
        measurements: of any image sizes.
        device: to measure on.
        small: give each fine-tuning a job of its own; what shares frozen features stays together.
    """
    groups: dict[tuple[Any, ...], list[Measurement]] = {}
    for number, measurement in enumerate(measurements):
        alone = small and not measurement.protocol.frozen
        groups.setdefault((measurement.image_size, number if alone else None), []).append(measurement)
    return [Job(group, device) for group in groups.values()]


def run_local(jobs: Sequence[Job], save: Callable[[Measurement, Rows], None], say: Say) -> None:
    """Run jobs in this process, one after another."""
    for job in jobs:
        for measurement, rows in job.rows(say):
            save(measurement, rows)


def run_on_ray(jobs: Sequence[Job], save: Callable[[Measurement, Rows], None], say: Say) -> None:
    """Run each job as a task of Ray, and save what it has measured, also of a job that fails.

    Raises:
        CurateError, RuntimeError: the first error of a job, once all have ended.
    """
    errors: list[Exception] = []
    for answer in executors.unordered(_RayWorker(jobs), range(len(jobs)), workers=cores(), gpus=1):
        for line in answer.lines:
            say(line)
        for measurement, rows in answer.rows:
            save(measurement, rows)
        if answer.error is not None:
            errors.append(answer.error)
    if errors:
        raise errors[0]


@dataclass
class _Answer:
    """What a Ray worker returns of a job."""

    lines: list[str] = field(default_factory=list)
    rows: list[tuple[Measurement, Rows]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class _RayWorker:
    """What a Ray worker is sent: all jobs, of which it runs one."""

    jobs: Sequence[Job] = field(repr=False)

    def __call__(self, number: int) -> _Answer:
        answer = _Answer()
        try:
            answer.rows.extend(self.jobs[number].rows(answer.lines.append))
        except CurateError as error:
            answer.error = error
        except Exception as error:  # such as too little memory: the other jobs go on
            first = self.jobs[number].measurements[0]
            answer.error = RuntimeError(f"{first}: {type(error).__name__}: {error}")
        return answer


def _run_on_task(measurement: Measurement, device: torch.device, say: Say) -> RunOnTask:
    run, task = measurement.run, measurement.task
    if task.kind == "detection":
        from train.transfer.detection.run_on_task import RunOnDetectionTask

        return RunOnDetectionTask(run, task, device=device, progress=say)
    assert measurement.image_size is not None
    return RunFeatures(run, task, image_size=measurement.image_size, device=device)


def _rows(
    run_on_task: RunOnTask,
    measurement: Measurement,
    subset: TrainSubset,
    result: ProtocolResult,
    seconds: float,
) -> Rows:
    """Return the rows of a measurement, one a metric."""
    run, task, protocol, shots = measurement.run, measurement.task, measurement.protocol, measurement.shots
    dataset = run.info.dataset
    common = {
        "run": run.name,
        "run_digest": run.digest,
        "dataset": dataset.name if dataset else None,
        "dataset_digest": dataset.digest if dataset else None,
        "task": task.name,
        "partition": task.partition,
        "task_digest": task.digest,
        "shots": str(shots),
        "images_per_class": shots if isinstance(shots, int) else None,
        "seed": measurement.seed,
        "protocol": protocol.name,
        "chosen": json.dumps(result.chosen),
        "select": result.select,
        "train_images": len(subset) if protocol.learns else 0,
        "short_classes": subset.short_classes,
        "sampling": subset.sampling,
        "image_size": measurement.image_size,
        "config": json.dumps(protocol.settings, sort_keys=True),
        "per_class": json.dumps(result.per_class) if result.per_class else None,
        "notes": json.dumps([*run_on_task.notes, *result.notes]),
        "device": run_on_task.device.type,
        "seconds": seconds,
        "version": VERSION,
        "cell": measurement.digest,
    }
    return [
        common | dataclasses.asdict(score) | {"headline": score.metric == task.metric}
        for score in result.scores
    ]
