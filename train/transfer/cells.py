"""Results for people: a cell of a table is a mean over draws, with an interval that does not flatter."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
    """Return the cells of rows of results, of each task's headline metric.

    Where several would be called alike, what they differ in is added to their names: the image size, the version of the
    measuring, the content of the task, the weights of the run.
    """
    groups = results.summary(table.filter(pc.field("headline"))).to_pylist()
    called: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        called[group["run"], group["task"], group["shots"], label(group)].append(group)
    alike = {id(group): others for others in called.values() for group in others}
    return [_cell(group, alike[id(group)]) for group in groups]


def _cell(group: dict[str, Any], alike: Sequence[dict[str, Any]]) -> Cell:
    def apart(column: str, form: str) -> str:
        differs = len({one[column] for one in alike}) > 1
        return form.format(str(group[column] or "").removeprefix("sha256:")) if differs else ""

    mean = group["mean"]
    low, high = (mean if group[end] is None else group[end] for end in ("ci_low", "ci_high"))
    return Cell(
        run=group["run"] + apart("run_digest", " ({:.4})"),
        task=group["task"] + apart("task_digest", " ({:.4})"),
        shots=group["shots"],
        protocol=label(group) + apart("image_size", ", {} px") + apart("version", ", version {}"),
        metric=group["metric"],
        mean=mean,
        low=max(min(low, group["test_low"]), 0.0),
        high=min(max(high, group["test_high"]), 1.0),
        seeds=group["seeds"],
        n=group["n"],
        by_test=group["select"] == "test",
    )


def label(row: dict[str, Any]) -> str:
    """Return how the protocol of a row is written; with how images were drawn, where that is not the usual way."""
    name = row["protocol"]
    said = written(name, json.loads(row["config"])) if name in PROTOCOLS else name
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
