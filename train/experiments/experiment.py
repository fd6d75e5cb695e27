"""Run an experiment: build, train and measure what its file says, and nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.builds.build import build
from curate.builds.plan import plan
from curate.datasets.dataset import Dataset
from curate.io.files import write_atomic
from curate.io.memory import peak_bytes
from curate.io.progress import Quiet
from train.experiments.grid import EXPERIMENT, VALIDATION, Experiment, MeasureSpec, TransferSpec


@dataclass
class StageLog:
    """How long each piece of work took, and the most memory this process held by its end."""

    progress: Quiet
    rows: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a piece of work."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.rows.append({"stage": name, "seconds": round(seconds, 2), "peak_mb": peak_bytes() // 1_000_000})
        self.progress.say(f"{seconds:6.1f} s  {name}")


def bundled(name: str) -> Path:
    """Return the path of a recipe that comes with the package."""
    installed = Path(__file__).parents[2] / "curate" / "bundled_recipes" / name
    return installed if installed.exists() else Path(__file__).parents[2] / "recipes" / name


def run_experiment(experiment: Experiment, out: str | Path, *, progress: Quiet | None = None) -> None:
    """Build the datasets, train a run on each, and measure every run.

    What is there already and up to date is not done again, so a second call goes on where the first stopped.
    Datasets lie in `out/datasets`, runs in `out/runs`, measurements in `out/results.parquet`; `train.reports`
    makes the page.

    Raises:
        RecipeError, DataError, MissingError: from the part that failed.
    """
    out = Path(out)
    stages = StageLog(progress or Quiet())
    _check(experiment)
    datasets, validation = _datasets(experiment, out, stages)
    runs, accuracy = _pretrain(experiment, out, datasets, validation, stages)
    if experiment.transfer is not None:
        _transfer(experiment, experiment.transfer, out, runs, stages)
    record = {
        "name": experiment.name,
        "notes": experiment.about,
        "order": list(experiment.datasets),
        "tasks": list(experiment.transfer.tasks) if experiment.transfer else [],
        "accuracy": accuracy,
        "stages": stages.rows,
        "experiment": experiment.model_dump(mode="json"),
    }
    write_atomic(out / EXPERIMENT, (json.dumps(record, indent=1) + "\n").encode())


def _check(experiment: Experiment) -> None:
    """Find the faults of every part before the first takes time."""
    from train.transfer.measurements import check_kinds

    parts = dict(experiment.datasets) | ({VALIDATION: experiment.validation} if experiment.validation else {})
    for name, part in parts.items():
        plan(experiment.recipe(name, part))
    if experiment.pretrain:
        _config(experiment)
    if experiment.transfer:
        check_kinds(_grids(experiment, experiment.transfer), _tasks(experiment.transfer))


def _config(experiment: Experiment) -> tuple[str, Any]:
    """Return the method of its pre-training and its configuration, checked."""
    from train.methods.registry import config_of

    options = {"seed": experiment.seed} | experiment.pretrain
    name = options.pop("method", "supervised")
    return name, config_of(name, options, f"{experiment.where}, pretrain")


def _protocol(experiment: Experiment, measure: MeasureSpec) -> Any:
    """Return a protocol with its settings, checked like an operation's arguments."""
    from train.transfer.protocols import find_protocol

    return find_protocol(measure.protocol, where=f"{experiment.where}, transfer")


def _grids(experiment: Experiment, what: TransferSpec) -> list[Any]:
    """Return what to measure by, checked."""
    from train.transfer import Grid
    from train.transfer.shots import parse_shots

    return [Grid(parse_shots(one.shots), one.seeds, [_protocol(experiment, one)]) for one in what.measure]


def _tasks(what: TransferSpec) -> list[Any]:
    from train.transfer.tasks.datasets import open_tasks

    return [task for name, place in what.tasks.items() for task in open_tasks(f"{name}={place}", what.data)]


def _datasets(
    experiment: Experiment, out: Path, stages: StageLog
) -> tuple[dict[str, Dataset], Dataset | None]:
    datasets = {}
    validation = None
    for name, part in experiment.datasets.items():
        kind = "shards" if part.shards else "overlay"
        with stages.stage(f"dataset {name} ({kind})"):
            recipe = experiment.recipe(name, part)
            folder = out / "datasets" / name
            built, *_ = build(recipe, folder, overlay=not part.shards, progress=stages.progress)
            datasets[name] = built.dataset
    if experiment.validation is not None:
        with stages.stage("dataset validation (overlay)"):
            recipe = experiment.recipe(VALIDATION, experiment.validation)
            folder = out / "datasets" / VALIDATION
            validation = build(recipe, folder, overlay=True, progress=stages.progress)[0].dataset
    return datasets, validation


def _pretrain(
    experiment: Experiment,
    out: Path,
    datasets: dict[str, Dataset],
    validation: Dataset | None,
    stages: StageLog,
) -> tuple[list[Any], dict[str, dict[str, Any]]]:
    """Train on each dataset; return the runs, scratch last, and each one's accuracy on the validation rows."""
    from train.eval.evaluation import held_out_accuracy
    from train.methods.registry import method
    from train.runs import scratch_run

    runs: list[Any] = []
    accuracy: dict[str, dict[str, Any]] = {}
    if not experiment.pretrain:
        return runs, accuracy
    name_of_method, config = _config(experiment)
    train = method(name_of_method).train
    coarse = datasets[experiment.coarse].classes if experiment.coarse else None
    for name, dataset in datasets.items():
        if not experiment.datasets[name].pretrain:
            continue
        with stages.stage(f"pre-training on {name}"):
            run = train(dataset, out / "runs" / name, config)
            runs.append(run)
        if validation is not None and name_of_method == "supervised":
            with stages.stage(f"validation of {name}"):
                accuracy[name] = held_out_accuracy(run, dataset, validation, coarse=coarse)
    if experiment.scratch and runs:
        runs.append(scratch_run(runs[0].spec, seed=config.seed))
    return runs, accuracy


def _transfer(
    experiment: Experiment, what: TransferSpec, out: Path, runs: list[Any], stages: StageLog
) -> None:
    from train.transfer import transfer

    tasks = _tasks(what)
    grids = _grids(experiment, what)
    for run in runs:
        count = sum(len(grid.measurements(run, task)) for grid in grids for task in tasks)
        title = f"transfer of {run.name}"
        with stages.stage(title), stages.progress.stage(title, count) as bar:
            transfer(
                run,
                tasks,
                grids,
                out=out / "results.parquet",
                progress=lambda line, bar=bar: bar.advance(),  # type: ignore[misc]
            )
