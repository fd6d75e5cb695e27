"""Transfer: runs on tasks, over shot counts, seeds and protocols, into `results.parquet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.errors import RecipeError, require_one_of
from curate.io import executors
from train.loop.devices import pick_device
from train.runs import Run
from train.transfer import results
from train.transfer.jobs import NO_IMAGES, Measurement, Rows, Say, here, jobs_of, on_ray
from train.transfer.protocols import DEFAULTS, Select, TransferProtocol, find_protocols
from train.transfer.shots import FULL, Sampling, parse_shots
from train.transfer.tasks.datasets import open_tasks


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
        shots = parse_shots(self.shots)
        if type(self.seeds) is not int or self.seeds < 1:
            raise RecipeError(f"seeds: {self.seeds!r}", hint="the number of draws, from 1")
        if self.image_size is not None and self.image_size < 1:
            raise RecipeError(f"image_size: {self.image_size!r}", hint="the side in pixels")
        require_one_of(Sampling, "sampling", self.sampling)
        found = []
        for protocol in self.chosen(task):
            if protocol.kind != task.kind:
                continue
            refuse = getattr(protocol, "refuse", None)
            if refuse:
                refuse(run, task)
            size = None if task.kind == "detection" else self.image_size or run.spec.image_size
            for k in shots if protocol.learns else [NO_IMAGES]:
                by_class = isinstance(k, int)
                many = protocol.learns and (k != FULL or protocol.chance_at_full)
                sampling: Sampling = self.sampling if by_class else "distinct"  # type: ignore[assignment]
                found += [
                    Measurement(run, task, k, seed, protocol, size, sampling)
                    for seed in range(self.seeds if many else 1)
                ]
        return found

    def chosen(self, task: Any) -> list[TransferProtocol]:
        """Return the protocols, or the usual one of a task."""
        found = find_protocols(self.protocols or [DEFAULTS[task.kind]])
        if self.select is None:
            return found
        require_one_of(Select, "select", self.select)
        return [
            dataclasses.replace(one, select=self.select) if hasattr(one, "select") else one  # type: ignore[type-var]
            for one in found
        ]


def transfer(
    runs: Run | Sequence[Run],
    tasks: Sequence[Any],
    grid: Grid | Sequence[Grid] | None = None,
    *,
    out: str | Path,
    device: str = "auto",
    executor: str = "local",
    progress: Callable[[str], None] | None = None,
    **changes: Any,
) -> pa.Table:
    """Measure what runs are worth on tasks, and return the rows of `results.parquet` for what was asked.

    Every measurement is over the whole test set, whatever the shots. What is in `out` already is not measured
    again; each measurement is written when it is done. The seed decides which images are drawn, which of them are
    held out to choose by, and fine-tuning's shuffles. Where all images are drawn and nothing else is left to chance,
    one seed is measured.

    Args:
        runs: what to measure, one or several.
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
        MissingError: there is no such device, or `out` cannot be written.
    """
    say = progress or (lambda line: None)
    grids = [grid or Grid()] if grid is None or isinstance(grid, Grid) else list(grid)
    out, asked = Path(out), [dataclasses.replace(one, **changes) for one in grids]
    executors.require(executor)
    if executor == "local":
        pick_device(device)
    results.check_path(out)
    opened = [one for task in tasks for one in (open_tasks(task) if isinstance(task, str) else [task])]
    check_kinds(asked, opened)
    pairs = [(run, task) for run in ([runs] if isinstance(runs, Run) else runs) for task in opened]
    # Finds the faults of all before the first is measured.
    wanted = [[m for one in asked for m in one.measurements(run, task)] for run, task in pairs]
    done = set(results.read(out)["cell"].to_pylist())
    missing = [_missing(some, done, say) for some in wanted]
    jobs = [job for some in missing for job in jobs_of(some, device, small=executor == "ray")]
    (on_ray if executor == "ray" else here)(jobs, lambda one, rows: _keep(one, rows, out, say), say)
    return results.of_cells(results.read(out), {one.digest for some in wanted for one in some})


def check_kinds(grids: Sequence[Grid], tasks: Sequence[Any]) -> None:
    """Refuse tasks that no protocol is for, and protocols that are for no task.

    Raises:
        RecipeError: the first of them.
    """
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


def _missing(wanted: Sequence[Measurement], done: Collection[str], say: Say) -> list[Measurement]:
    """Return the measurements whose digests are not among those done, each once."""
    asked = {one.digest: one for one in wanted}
    todo = [one for name, one in asked.items() if name not in done]
    if len(todo) < len(asked):
        first = wanted[0]
        say(
            f"{first.run.name} · {first.task.name}: {len(asked) - len(todo)} of {len(asked)} measured already"
        )
    return todo


def _keep(one: Measurement, rows: Rows, out: Path, say: Say) -> None:
    results.append(out, rows)
    told = next((row for row in rows if row["headline"]), rows[0])
    flattered = ", chosen by the test set" if told["select"] == "test" else ""
    say(f"{one}: {told['metric']} {told['value']:.2%} of {told['n']:,}{flattered} ({told['seconds']:.1f} s)")
