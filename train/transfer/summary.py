"""Results for people: a cell of a table is a mean over draws, with an interval that does not flatter."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.rows.manifest import digest
from train.transfer import results
from train.transfer.labels import Key, RunFacts, labels
from train.transfer.protocols import protocols, written


@dataclass(frozen=True)
class Cell:
    """The mean over seeds and partitions of one run on one task at one shot count under one protocol.

    Args:
        protocol: as it is written, with the settings that are not the usual ones.
        mean: of the task's headline metric, 0..1.
        low, high: the wider of two 95 % intervals: Student's over the draws, and the mean of those over the test
            images. Draws alone would claim certainty where they are all the same, as at full shots.
        seeds: draws.
        n: test images.
        by_test: whether something was chosen by the test set itself.
        scratch: whether the run learned from nothing.
    """

    run: str
    task: str
    shots: str
    protocol: str
    metric: str
    mean: float
    low: float
    high: float
    seeds: int
    n: int
    by_test: bool = False
    scratch: bool = False

    @property
    def shown(self) -> str:
        """The mean and half of the interval, in per cent; a dagger where it was chosen by the test set."""
        dagger = "†" if self.by_test else ""
        return f"{self.mean * 100:.1f}{dagger} ± {(self.high - self.low) * 50:.1f}"


def cells_of(table: pa.Table, called: Mapping[Key, str] | None = None) -> list[Cell]:
    """Return the cells of rows of results, of each task's headline metric.

    A run is known by its name and weights. Where several cells would be called alike, what they differ in is added to
    their names: the content of the task, the image size, the version of the measuring, whatever else.

    Args:
        table: the rows.
        called: what each run is called; by the rows alone where it is not given.
    """
    groups = results.summary(table.filter(pc.field("headline"))).to_pylist()
    names = labels(map(facts_of, groups)) if called is None else called
    contents: dict[str, set[str]] = defaultdict(set)
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        contents[group["task"]].add(group["task_digest"] or "")
        alike[_place(group)].append(group)
    cells = []
    for group in groups:
        several = len(contents[group["task"]]) > 1 and group["task_digest"]
        task = (
            f"{group['task']} ({group['task_digest'].removeprefix('sha256:'):.4})"
            if several
            else group["task"]
        )
        run = names[group["run"], group["run_digest"]]
        cells.append(_cell(group, run, task, label(group) + _apart(group, alike[_place(group)])))
    return cells


def facts_of(row: Mapping[str, Any]) -> RunFacts:
    """Return what a row of results tells of its run."""
    return RunFacts(row["run"], row["run_digest"], dataset=row["dataset"])


def _place(group: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(str(group[c]) for c in ("run", "run_digest", "task", "task_digest", "shots")), label(group))


APART = {
    "image_size": "{} px",
    "version": "version {}",
    "metric": "{}",
    "select": "chosen by {}",
    "config": "settings {:.4}",
    "dataset_digest": "dataset {:.4}",
}  # what two cells of one run, task, shot count and protocol may differ in


def _apart(group: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> str:
    told = ""
    for column, form in APART.items():
        if len({one[column] for one in alike}) > 1:
            value = digest(group[column]) if column == "config" else str(group[column])
            told += ", " + form.format(value.removeprefix("sha256:"))
    return told


def _cell(group: Mapping[str, Any], run: str, task: str, protocol: str) -> Cell:
    mean = group["mean"]
    low, high = (mean if group[end] is None else group[end] for end in ("ci_low", "ci_high"))
    return Cell(
        run=run,
        task=task,
        shots=group["shots"],
        protocol=protocol,
        metric=group["metric"],
        mean=mean,
        low=max(min(low, group["test_low"]), 0.0),
        high=min(max(high, group["test_high"]), 1.0),
        seeds=group["seeds"],
        n=group["n"],
        by_test=group["select"] == "test",
        scratch=group["dataset"] is None,
    )


def label(row: Mapping[str, Any]) -> str:
    """Return how the protocol of a row is written; with how images were drawn, where that is not the usual way."""
    said = name = row["protocol"]
    with suppress(ValueError, AttributeError):  # a file of others may hold anything for settings
        said = written(name, json.loads(row["config"])) if name in protocols() else name
    return said if row["sampling"] in (None, "distinct") else f"{said}, drawn with replacement"


def shown(table: pa.Table) -> tuple[list[str], list[list[Any]]]:
    """Return a table for people, columns and rows: headline metrics in per cent, several runs side by side."""
    cells = cells_of(table)
    runs = list(dict.fromkeys(cell.run for cell in cells))
    rows: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.task, cell.shots, cell.protocol, cell.metric), {})[cell.run] = cell
    what = ["task", "shots", "protocol", "metric"]
    if len(runs) == 1:
        one = [(place, found[runs[0]]) for place, found in rows.items()]
        lines = [[*place, cell.shown, cell.seeds, f"{cell.n:,}"] for place, cell in one]
        return [*what, "mean ± half a 95 % interval", "draws", "test images"], lines
    several = [[found[run].shown if run in found else "–" for run in runs] for found in rows.values()]
    return [*what, *runs], [[*place, *line] for place, line in zip(rows, several, strict=True)]
