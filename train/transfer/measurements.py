"""What is to be measured: runs on tasks, over shot counts, seeds and protocols."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from curate.errors import RecipeError, require_one_of
from curate.rows.manifest import digest
from train.runs import Run
from train.transfer.features import RunOnTask
from train.transfer.protocols import DEFAULTS, Select, find_protocols
from train.transfer.protocols._base import TransferProtocol
from train.transfer.shots import FULL, Sampling, Shots, TrainSubset, draw_shots, parse_shots

VERSION = 3  # goes up when the same settings give other values; part of a measurement's name
NO_IMAGES = "0"  # the shots of a protocol that learns from no image


@dataclass(frozen=True)
class Measurement:
    """One run on one task by one protocol, from one draw of the training images."""

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
        """Names everything that decides the value, but for the device."""
        settings = self.protocol.settings
        if settings.get("templates") == ():  # the task's own
            settings |= {"templates": self.task.templates}
        content = self.protocol.content()
        if content is not None:
            settings |= {"content": content}
        spec = self.run.spec
        what = [
            self.run.name,
            self.run.digest,
            spec.mean,
            spec.std,
            self.task.name,
            self.task.digest,
            self.image_size,
        ]
        return digest(
            ["cell", VERSION, *what, str(self.shots), self.seed, self.sampling, self.protocol.name, settings]
        )

    def draw(self, run_on_task: RunOnTask) -> TrainSubset:
        """Draw its training images."""
        shots = FULL if self.shots == NO_IMAGES else self.shots
        return draw_shots(run_on_task.keys, run_on_task.targets, shots, self.seed, sampling=self.sampling)


@dataclass(frozen=True)
class Grid:
    """What to measure a run by.

    Args:
        shots: images of each class; "full"; or "total-1000".
        seeds: how many draws of each shot count: seeds 0, 1, 2, …
        protocols: names (`knn`, `finetune:kornblith`, `knn(k=200)`) or protocols; none for the usual one of a task.
        image_size: in pixels; that of the run by default.
        sampling: what a class with fewer images than shots gives: all it has ("distinct"), or draws with replacement.
        select: "test" lets linear and fine-tuning choose by the test set itself; their rows say so.
    """

    shots: Sequence[int | str] = (1, 5, 10, 20, FULL)
    seeds: int = 3
    protocols: Sequence[str | Mapping[str, Any] | TransferProtocol] = ()
    image_size: int | None = None
    sampling: str = "distinct"
    select: str | None = None

    def measurements(self, run: Run, task: Any) -> list[Measurement]:
        """Return the measurements of a run on a task, by the protocols that are for its kind.

        Raises:
            RecipeError: a wrong shot count, protocol, number of seeds or size; or a protocol that is not for this run.
        """
        all_shots = parse_shots(self.shots)
        if type(self.seeds) is not int or self.seeds < 1:
            raise RecipeError(f"seeds: {self.seeds!r}", hint="the number of draws, from 1")
        if self.image_size is not None and self.image_size < 1:
            raise RecipeError(f"image_size: {self.image_size!r}", hint="the side in pixels")
        require_one_of(Sampling, "sampling", self.sampling)
        measurements = []
        for protocol in self.protocols_for(task):
            if protocol.kind != task.kind:
                continue
            protocol.refuse(run, task)
            size = None if task.kind == "detection" else self.image_size or run.spec.image_size
            for shots in all_shots if protocol.learns else [NO_IMAGES]:
                by_class = isinstance(shots, int)
                seeds_differ = protocol.learns and (shots != FULL or protocol.chance_at_full)
                sampling: Sampling = self.sampling if by_class else "distinct"  # type: ignore[assignment]
                measurements += [
                    Measurement(run, task, shots, seed, protocol, size, sampling)
                    for seed in range(self.seeds if seeds_differ else 1)
                ]
        return measurements

    def protocols_for(self, task: Any) -> list[TransferProtocol]:
        """Return the protocols, or the usual one of a task."""
        protocols = find_protocols(self.protocols or [DEFAULTS[task.kind]])
        if self.select is None:
            return protocols
        require_one_of(Select, "select", self.select)
        return [
            dataclasses.replace(protocol, select=self.select)  # type: ignore[call-arg]
            if hasattr(protocol, "select")
            else protocol
            for protocol in protocols
        ]


def check_kinds(grids: Sequence[Grid], tasks: Sequence[Any]) -> None:
    """Refuse tasks that no protocol is for, and protocols that are for no task.

    Raises:
        RecipeError: the first of them.
    """
    named = [protocol for grid in grids if grid.protocols for protocol in find_protocols(grid.protocols)]
    kinds = {protocol.kind for protocol in named}
    if not all(grid.protocols for grid in grids):
        kinds |= set(DEFAULTS)
    for protocol in named:
        if tasks and protocol.kind not in {task.kind for task in tasks}:
            raise RecipeError(
                f"protocol {protocol.name} is for {protocol.kind}, and task {tasks[0].name} is one of {tasks[0].kind}",
                hint=f"take {DEFAULTS[tasks[0].kind]}",
            )
    for task in tasks:
        if task.kind not in kinds:
            raise RecipeError(
                f"task {task.name} is one of {task.kind}, and no protocol given is for that",
                hint=f"take {DEFAULTS[task.kind]} too",
            )
