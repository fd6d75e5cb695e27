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
    def shown(table: pa.Table) -> tuple[list[str], list[list[Any]]]:
    """Return a table for people, columns and rows: each task's headline metric in per cent, several runs side by side."""
    cells = cells_of(table)
    runs = list(dict.fromkeys(cell.run for cell in cells))
    rows: dict[tuple[str, ...], dict[str, Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.task, cell.shots, cell.protocol, cell.metric), {})[cell.run] = cell
    what = ["task", "shots", "protocol", "metric"]
    if len(runs) == 1:
        one = [[*place, *((c := found[runs[0]]).shown, c.seeds, f"{c.n:,}")] for place, found in rows.items()]
        return [*what, "mean ± half a 95 % interval", "draws", "test images"], one
    lines = [[*place, *(found[run].shown if run in found else "–" for run in runs)] for place, found in rows.items()]
    return [*what, *runs], lines
