"""Results for people: a cell of a table is a mean over draws, with an interval that does not flatter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from train.transfer import results
from train.transfer.protocols import PROTOCOLS, written


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

    @property
    def shown(self) -> str:
        """The mean and half of the interval, in per cent; a dagger where it was chosen by the test set."""
        dagger = "†" if self.by_test else ""
        return f"{self.mean * 100:.1f}{dagger} ± {(self.high - self.low) * 50:.1f}"


def cells_of(table: pa.Table) -> list[Cell]:
    """Return the cells of rows of results, of each task's headline metric."""
    rows = [row for row in table.to_pylist() if row["headline"]]
    names = [name for name in results.GROUP if name not in ("task_digest", "select")]
    tests: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        tests.setdefault(_place(row, names), []).append(row)
    cells = []
    for group in results.summary(pa.Table.from_pylist(rows, schema=table.schema)).to_pylist():
        measured = [one for one in tests[_place(group, names)] if _matches(one, group)]
        mean, count = group["mean"], len(measured)
        below = sum(row["value"] - row["ci_low"] for row in measured) / count
        above = sum(row["ci_high"] - row["value"] for row in measured) / count
        low, high = (mean if group[end] is None else group[end] for end in ("ci_low", "ci_high"))
        cells.append(
            Cell(
                run=group["run"],
                task=group["task"],
                shots=group["shots"],
                protocol=label(group),
                metric=group["metric"],
                mean=mean,
                low=max(min(low, mean - below), 0.0),
                high=min(max(high, mean + above), 1.0),
                seeds=group["seeds"],
                n=min(row["n"] for row in measured),
                by_test=group["select"] == "test",
            )
        )
    return cells


def _place(row: dict[str, Any], names: list[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _matches(row: dict[str, Any], group: dict[str, Any]) -> bool:
    same_task = group["task_digest"] in (None, row["task_digest"])
    return same_task and (row["select"] == "test") == (group["select"] == "test")


def label(row: dict[str, Any]) -> str:
    """Return how the protocol of a row is written; with how images were drawn, where that is not the usual way."""
    name = row["protocol"]
    said = written(name, json.loads(row["config"])) if name in PROTOCOLS else name
    return said if row["sampling"] in (None, "distinct") else f"{said}, drawn with replacement"


def shown(table: pa.Table) -> tuple[list[str], list[list[Any]]]:
    """Return a table for people, columns and rows: a row a cell, in per cent, of each task's headline metric."""
    cells = cells_of(table)
    several = len({cell.run for cell in cells}) > 1
    columns = ["task", "shots", "protocol", "metric", "mean ± half a 95 % interval", "draws", "test images"]
    lines = []
    for cell in cells:
        line = [cell.task, cell.shots, cell.protocol, cell.metric, cell.shown, cell.seeds, f"{cell.n:,}"]
        lines.append([cell.run, *line] if several else line)
    return (["run", *columns] if several else columns), lines
