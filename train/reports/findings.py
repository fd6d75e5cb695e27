"""The content of a report: the datasets, runs and results below a folder, brought together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from curate.datasets.dataset import Dataset, open_dataset
from curate.datasets.queries import Say, passed_over
from curate.errors import CurateError, RecipeError
from train.experiments.grid import EXPERIMENT
from train.runs import Run, open_run
from train.transfer import results
from train.transfer.run_names import RunFacts, RunKey, unique_labels
from train.transfer.summary import SummaryRow, run_facts, summary_rows

T = TypeVar("T")


@dataclass(frozen=True)
class Findings:
    """Everything below a folder that a report needs; names in the order to show them in.

    Args:
        names: the labels of runs, those with results first, scratch last of these.
        labels: name and digest of each run → its label.
        scratches: the labels of runs without pre-training.
        accuracy: key of a run → its accuracies on held-out rows, as its experiment measured them.
    """

    title: str
    root: Path
    datasets: list[Dataset]
    runs: list[Run]
    summary: list[SummaryRow]
    names: list[str]
    tasks: list[str]
    shots: list[str]
    protocols: list[str]
    labels: dict[RunKey, str]
    scratches: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    accuracy: dict[RunKey, dict[str, float]] = field(default_factory=dict)

    def row(self, run: str, task: str, shots: str, protocol: str) -> SummaryRow | None:
        """Return one row of the summary, or None where it was not measured."""
        return self._index.get((run, task, shots, protocol))

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, str], SummaryRow]:
        return {(c.run, c.task, c.shots, c.protocol): c for c in self.summary}

    def name_of(self, run: Run) -> str:
        """Return what a run is called."""
        return self.labels[run.name, run.digest]

    @cached_property
    def run_by_name(self) -> dict[str, Run]:
        """The runs by what they are called; of several folders of one run the first that was measured on its own."""
        found: dict[str, Run] = {}
        for run in sorted(self.runs, key=lambda run: not run.info.metrics):
            found.setdefault(self.name_of(run), run)
        return found

    @property
    def measured(self) -> list[str]:
        """The names of runs with results."""
        measured = {row.run for row in self.summary}
        return [name for name in self.names if name in measured]

    def label(self, name: str) -> str:
        """Return how a run is called in a table."""
        if name not in self.scratches:
            return name
        return "nothing" if len(self.scratches) == 1 else f"nothing ({name})"

    def scratch_of(self, name: str) -> str | None:
        """Return the run without pre-training that another is to be compared with: of its model, and of its seed."""
        run = self.run_by_name.get(name)
        ours = sorted(self.scratches, key=self.names.index)
        if run is None or len(ours) < 2:
            return ours[0] if len(ours) == 1 else None
        model = f"scratch-{run.spec.name.replace('/', '-')}-seed"
        of_model = [one for one in ours if one.startswith(model)]
        return next((one for one in of_model if one == f"{model}{run.info.seed}"), next(iter(of_model), None))


def gather(root: str | Path, *, say: Say = passed_over) -> Findings:
    """Read the datasets, runs and results below a folder.

    Args:
        root: the folder.
        say: gets a line for each file that cannot be read; it is left out.

    Raises:
        RecipeError: there is no such folder, or nothing to report in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecipeError(f"{root}: no such folder", hint="give the folder of an experiment, or of runs")
    experiment = _read_experiment(root / EXPERIMENT, say)
    order = experiment["order"]
    datasets = _opened(open_dataset, [p.parent for p in _found(root, "dataset.json")], say)
    runs = _opened(open_run, [p.parent for p in _found(root, "run.json")], say)
    tables = _opened(results.read, _found(root, "results.parquet"), say)
    rows = _once(tables)
    if not runs and not rows.num_rows:
        raise RecipeError(
            f"{root}: no runs and no results", hint="`curate experiment` or `curate transfer` makes them"
        )
    labels = unique_labels([*(_facts(run, root) for run in runs), *map(run_facts, rows.to_pylist())])
    summary = summary_rows(rows, labels)
    scratches = frozenset(c.run for c in summary if c.scratch)
    alone = [labels[run.name, run.digest] for run in runs]
    with_results = sorted({c.run for c in summary}, key=lambda n: (n in scratches, _rank(n, order)))
    return Findings(
        title=experiment["name"] or root.resolve().name,
        root=root,
        datasets=sorted(datasets, key=lambda d: _rank(d.name, order)),
        runs=sorted(runs, key=lambda r: _rank(r.name, order)),
        summary=summary,
        names=[*with_results, *sorted({*alone} - {*with_results}, key=lambda n: _rank(n, order))],
        tasks=sorted({c.task for c in summary}, key=lambda t: _rank(t, experiment["tasks"])),
        shots=sorted(
            {c.shots for c in summary}, key=lambda s: (s == "full", int(s) if s.isdecimal() else 0, s)
        ),
        protocols=sorted({c.protocol for c in summary}, reverse=True),
        labels=labels,
        scratches=scratches,
        notes=experiment["notes"],
        accuracy=_accuracy(root, runs, say),
    )


def _opened(opener: Callable[[Path], T], paths: Sequence[Path], say: Say) -> list[T]:
    """Open what can be opened, and say of the rest why it cannot."""
    found = []
    for path in paths:
        try:
            found.append(opener(path))
        except CurateError as error:
            say(error.message)
    return found


def _once(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several files of results; a measurement that stands in two of them counts once."""
    table = pa.concat_tables([results.SCHEMA.empty_table(), *tables])
    first: dict[tuple[str, str], int] = {}
    for place, key in enumerate(zip(table["cell"].to_pylist(), table["metric"].to_pylist(), strict=True)):
        first.setdefault(key, place)
    return table.take(pa.array(first.values(), pa.int64()))


def _facts(run: Run, root: Path) -> RunFacts:
    info = run.info
    dataset, folder = info.dataset.name if info.dataset else None, str(run.path.relative_to(root))
    return RunFacts(run.name, run.digest, info.method, info.seed, dataset, run.spec.name, folder)


def _accuracy(root: Path, runs: Sequence[Run], say: Say) -> dict[RunKey, dict[str, float]]:
    """Return what experiments below a folder measured of their runs on held-out rows."""
    found = {}
    for file in _found(root, EXPERIMENT):
        accuracy = _read_experiment(file, say)["accuracy"]
        for run in runs:
            one = accuracy.get(run.path.name) if run.path.parent == file.parent / "runs" else None
            if isinstance(one, dict):
                found[run.name, run.digest] = {k: v for k, v in one.items() if isinstance(v, int | float)}
    return found


def _read_experiment(file: Path, say: Say) -> dict[str, Any]:
    """Return what an experiment says of itself; what is not of the kind that it should be is as if it were not."""
    document: Any = {}
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        say(f"{file}: {error}")
    if not isinstance(document, dict):
        say(f"{file}: not what an experiment says of itself")
        document = {}
    experiment: dict[str, Any] = {"name": document.get("name"), "accuracy": document.get("accuracy")}
    experiment["name"] = experiment["name"] if isinstance(experiment["name"], str) else ""
    experiment["accuracy"] = experiment["accuracy"] if isinstance(experiment["accuracy"], dict) else {}
    for name in ("order", "tasks", "notes"):
        some = document.get(name)
        experiment[name] = [one for one in some if isinstance(one, str)] if isinstance(some, list) else []
    return experiment


def _found(root: Path, name: str) -> list[Path]:
    return sorted(
        p for p in root.rglob(name) if not any(part.startswith(".") for part in p.relative_to(root).parts)
    )


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
