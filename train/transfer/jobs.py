"""What is to be measured, piece by piece, here or on Ray."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from curate.errors import CurateError
from curate.io import executors
from curate.io.executors import cores
from curate.rows.manifest import digest
from train.loop.devices import pick_device
from train.runs import Run
from train.transfer.features import AnySubject, Outcome, Subject
from train.transfer.protocols import TransferProtocol, settings
from train.transfer.shots import FULL, Draw, Sampling, Shots, draw

VERSION = 3  # goes up when the same settings give other values; part of a measurement's name
NO_IMAGES = "0"  # the shots of a protocol that learns from none

Say = Callable[[str], None]
Rows = list[dict[str, Any]]  # of results: a row a metric


@dataclass(frozen=True)
class Measurement:
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

    @cached_property
    def digest(self) -> str:
        """Names everything that decides the row, but for the device."""
        said = settings(self.protocol)
        if said.get("templates") == ():  # the task's own
            said |= {"templates": self.task.templates}
        content = getattr(self.protocol, "content", None)
        if content is not None:  # of a file that a setting names
            said |= {"content": content()}
        spec = self.run.spec
        where = [
            self.run.name,
            self.run.digest,
            spec.mean,
            spec.std,
            self.task.name,
            self.task.digest,
            self.image_size,
        ]
        return digest(
            ["cell", VERSION, *where, str(self.shots), self.seed, self.sampling, self.protocol.name, said]
        )

    def draw(self, subject: AnySubject) -> Draw:
        """Return the training images that it is about."""
        shots = FULL if self.shots == NO_IMAGES else self.shots
        return draw(subject.keys, subject.targets, shots, self.seed, sampling=self.sampling)


@dataclass(frozen=True)
class Job:
    """Measurements of one run on one task at one image size: what a worker does on its own."""

    measurements: Sequence[Measurement]
    device: str = "auto"

    def rows(self, say: Say) -> Iterator[tuple[Measurement, Rows]]:
        """Give the rows of each measurement as it is made."""
        subject = _subject(self.measurements[0], pick_device(self.device), say)
        for note in subject.notes:
            say(f"{self.measurements[0].task.name}: {note}")
        for one in self.measurements:
            start = time.perf_counter()
            drawn = one.draw(subject)
            outcome = one.protocol.measure(subject, drawn)
            yield one, _rows(subject, one, drawn, outcome, time.perf_counter() - start)


def jobs_of(measurements: Sequence[Measurement], device: str, *, small: bool = False) -> list[Job]:
    """Cut the measurements of a run on a task into jobs.

    Args:
        measurements: of any image sizes.
        device: to measure on.
        small: give each fine-tuning a job of its own; what shares frozen features stays together.
    """
    found: dict[tuple[Any, ...], list[Measurement]] = {}
    for number, one in enumerate(measurements):
        alone = small and not one.protocol.frozen
        found.setdefault((one.image_size, number if alone else None), []).append(one)
    return [Job(some, device) for some in found.values()]


def here(jobs: Sequence[Job], keep: Callable[[Measurement, Rows], None], say: Say) -> None:
    """Do jobs one after another."""
    for job in jobs:
        for one, rows in job.rows(say):
            keep(one, rows)


def on_ray(jobs: Sequence[Job], keep: Callable[[Measurement, Rows], None], say: Say) -> None:
    """Do each job as a task of Ray; what one has measured is kept, whatever becomes of it or of the others.

    Raises:
        CurateError, RuntimeError: the first that a job ended with, once all are done.
    """
    failed: list[Exception] = []
    for done in executors.unordered(_Work(jobs), range(len(jobs)), workers=cores(), gpus=1):
        for line in done.lines:
            say(line)
        for one, rows in done.rows:
            keep(one, rows)
        if done.error is not None:
            failed.append(done.error)
    if failed:
        raise failed[0]


@dataclass
class _Done:
    """What a worker brings back."""

    lines: list[str] = field(default_factory=list)
    rows: list[tuple[Measurement, Rows]] = field(default_factory=list)
    error: Exception | None = None


@dataclass(frozen=True)
class _Work:
    """What a Ray worker is given: the jobs, of which it does one."""

    jobs: Sequence[Job] = field(repr=False)

    def __call__(self, number: int) -> _Done:
        done = _Done()
        try:
            done.rows.extend(self.jobs[number].rows(done.lines.append))
        except CurateError as error:
            done.error = error
        except Exception as error:  # such as memory that is too small: the other jobs go on
            done.error = RuntimeError(f"{self.jobs[number].measurements[0]}: {type(error).__name__}: {error}")
        return done


def _subject(one: Measurement, device: torch.device, say: Say) -> AnySubject:
    if one.task.kind == "detection":
        from train.transfer.detection.features import DetectionSubject

        return DetectionSubject(one.run, one.task, device=device, progress=say)
    assert one.image_size is not None
    return Subject(one.run, one.task, image_size=one.image_size, device=device)


def _rows(subject: AnySubject, one: Measurement, drawn: Draw, outcome: Outcome, seconds: float) -> Rows:
    """Return the rows of a measurement, one a metric."""
    dataset = one.run.info.dataset
    common = {
        "run": one.run.name,
        "run_digest": one.run.digest,
        "dataset": dataset.name if dataset else None,
        "dataset_digest": dataset.digest if dataset else None,
        "task": one.task.name,
        "partition": one.task.partition,
        "task_digest": one.task.digest,
        "shots": str(one.shots),
        "images_per_class": one.shots if isinstance(one.shots, int) else None,
        "seed": one.seed,
        "protocol": one.protocol.name,
        "chosen": json.dumps(outcome.chosen),
        "select": outcome.select,
        "train_images": len(drawn) if one.protocol.learns else 0,
        "short_classes": drawn.short_classes,
        "sampling": drawn.sampling,
        "image_size": one.image_size,
        "config": json.dumps(settings(one.protocol), sort_keys=True),
        "per_class": json.dumps(outcome.per_class) if outcome.per_class else None,
        "notes": json.dumps([*subject.notes, *outcome.notes]),
        "device": subject.device.type,
        "seconds": seconds,
        "version": VERSION,
        "cell": one.digest,
    }
    return [
        common | dataclasses.asdict(score) | {"headline": score.metric == one.task.metric}
        for score in outcome.scores
    ]
