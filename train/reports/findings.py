"""What a report tells: the datasets, runs and results below a folder, brought together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.datasets import Dataset, open_dataset
from curate.errors import RecipeError
from train.grids import EXPERIMENT
from train.runs import Run, open_run
from train.transfer import results
from train.transfer.cells import Cell, cells_of


@dataclass(frozen=True)
class Findings:
    """Everything below a folder that a report needs; names in the order to show them in."""

    title: str
    root: Path
    datasets: list[Dataset]
    runs: list[Run]
    cells: list[Cell]
    names: list[str]  # of runs with results, scratch last
    tasks: list[str]
    shots: list[str]
    protocols: list[str]
    notes: list[str] = field(default_factory=list)
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)  # of runs on held-out rows

    def cell(self, run: str, task: str, shots: str, protocol: str) -> Cell | None:
        """Return one cell, or None where it was not measured."""
        return self._index.get((run, task, shots, protocol))

    @property
    def _index(self) -> dict[tuple[str, str, str, str], Cell]:
        return {(c.run, c.task, c.shots, c.protocol): c for c in self.cells}

    @property
    def scratch(self) -> str | None:
        """The run without pre-training, if it was measured."""
        return next((name for name in self.names if is_scratch(name)), None)


def is_scratch(name: str) -> bool:
    """Whether a run's name is that of one without pre-training."""
    return name == "scratch" or name.startswith("scratch-")


def gather(root: str | Path) -> Findings:
    """Read the datasets, runs and results below a folder.

    Raises:
        RecipeError: there is no such folder, or nothing to report in it.
        DataError: a file of results is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise RecipeError(f"{root}: no such folder", hint="give the folder of an experiment, or of runs")
    told = _told(root)
    order = told.get("order", [])
    datasets = [open_dataset(p.parent) for p in _found(root, "dataset.json")]
    runs = [open_run(p.parent) for p in _found(root, "run.json")]
    cells = [cell for path in _found(root, "results.parquet") for cell in cells_of(results.read(path))]
    if not runs and not cells:
        raise RecipeError(
            f"{root}: no runs and no results", hint="`curate experiment` or `curate transfer` makes them"
        )
    return Findings(
        title=told.get("name", root.resolve().name),
        root=root,
        datasets=sorted(datasets, key=lambda d: _rank(d.name, order)),
        runs=sorted(runs, key=lambda r: _rank(r.name, order)),
        cells=cells,
        names=sorted({c.run for c in cells}, key=lambda n: (is_scratch(n), _rank(n, order))),
        tasks=sorted({c.task for c in cells}, key=lambda t: _rank(t, told.get("tasks", []))),
        shots=sorted({c.shots for c in cells}, key=lambda s: (s == "full", int(s) if s.isdigit() else 0)),
        protocols=sorted({c.protocol for c in cells}, reverse=True),
        notes=told.get("notes", []),
        accuracy=told.get("accuracy", {}),
    )


def _told(root: Path) -> dict[str, Any]:
    try:
        document = json.loads((root / EXPERIMENT).read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _found(root: Path, name: str) -> list[Path]:
    return sorted(
        p for p in root.rglob(name) if not any(part.startswith(".") for part in p.relative_to(root).parts)
    )


def _rank(name: str, order: Sequence[str]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)
