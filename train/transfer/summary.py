"""Results for people: the mean over draws of each measurement, with an interval that does not flatter."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.rows.manifest import digest
from train.transfer.protocols import protocol_text, protocols
from train.transfer.results import SCHEMA
from train.transfer.run_names import RunFacts, RunKey, unique_labels

GROUP = (
    "run", "run_digest", "dataset", "dataset_digest", "task", "task_digest", "shots", "images_per_class",
    "protocol", "image_size", "config", "sampling", "select", "metric", "headline", "version",
)  # fmt: skip
SUMMARY = pa.schema(
    [SCHEMA.field(name) for name in GROUP]
    + [pa.field("seeds", pa.int32()), pa.field("n", pa.int64())]
    + [pa.field(name, pa.float64()) for name in ("mean", "sd", "ci_low", "ci_high", "test_low", "test_high")]
)


def summarize(results: pa.Table) -> pa.Table:
    """Return the mean over seeds and partitions of each run, task, shot count, protocol (with its settings) and metric.

    There are two 95 % intervals. One is Student's over the seeds and partitions: it tells the spread of the draws, not
    the number of test images, and a single draw has none. The other is the mean of those over the test images. Of a
    partition that was measured with several contents, the last counts.

    Returns:
        The columns that name the group (`select` is "test" or null; `task_digest` is null where there are partitions),
        then seeds, n (the fewest test images), mean, sd, ci_low and ci_high (null for one seed), test_low, test_high.
    """
    groups: dict[tuple, dict[tuple, dict[str, Any]]] = defaultdict(dict)
    for row in results.to_pylist():
        if row["select"] != "test":
            row["select"] = None  # how else it chose may differ by draw
        if row["partition"] is not None:
            row["task_digest"] = None  # of each partition its own
        groups[tuple(row[name] for name in GROUP)][row["partition"], row["seed"]] = row
    rows = [dict(zip(GROUP, key, strict=True)) | _mean(list(draws.values())) for key, draws in groups.items()]
    return pa.Table.from_pylist(rows, schema=SUMMARY)


def _mean(draws: list[dict[str, Any]]) -> dict[str, Any]:
    spread = _spread([row["value"] for row in draws])
    below = math.fsum(row["value"] - row["ci_low"] for row in draws) / len(draws)
    above = math.fsum(row["ci_high"] - row["value"] for row in draws) / len(draws)
    test = {"test_low": spread["mean"] - below, "test_high": spread["mean"] + above}
    return spread | test | {"n": min(row["n"] for row in draws)}


def _spread(values: list[float]) -> dict[str, Any]:
    from scipy.stats import t  # type: ignore[import-untyped]

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return {"seeds": count, "mean": mean, "sd": None, "ci_low": None, "ci_high": None}
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * sd / math.sqrt(count)
    return {"seeds": count, "mean": mean, "sd": sd, "ci_low": mean - half, "ci_high": mean + half}


@dataclass(frozen=True)
class SummaryRow:
    """The mean over seeds and partitions of one run on one task at one shot count by one protocol.

    Args:
        run: its label.
        protocol: as it is written, with the settings that are not the defaults.
        mean: of the task's headline metric, 0..1.
        low, high: the wider of two 95 % intervals: Student's over the draws, and the mean of those over the test
            images. Draws alone would claim certainty where they are all the same, as at full shots.
        seeds: draws.
        n: test images.
        by_test: whether something was chosen by the test set itself.
        scratch: whether the run has no pre-training.
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
    def text(self) -> str:
        """The mean and half of the interval, in per cent; a dagger where it was chosen by the test set."""
        dagger = "†" if self.by_test else ""
        return f"{self.mean * 100:.1f}{dagger} ± {(self.high - self.low) * 50:.1f}"


def summary_rows(results: pa.Table, labels: Mapping[RunKey, str] | None = None) -> list[SummaryRow]:
    """Summarize results, of each task's headline metric.

    A run is identified by its name and weights. Where several rows would have the same names, the facts in which they
    differ are added: the content of the task, the image size, the version of the measuring, any other.

    Args:
        results: rows of `results.parquet`.
        labels: of the runs; made from the results alone by default.
    """
    groups = summarize(results.filter(pc.field("headline"))).to_pylist()
    labels = unique_labels(map(run_facts, groups)) if labels is None else labels
    contents: dict[str, set[str]] = defaultdict(set)
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for group in groups:
        contents[group["task"]].add(group["task_digest"] or "")
        alike[_names(group)].append(group)
    rows = []
    for group in groups:
        task = group["task"]
        if len(contents[task]) > 1 and group["task_digest"]:
            task += f" ({group['task_digest'].removeprefix('sha256:'):.4})"
        protocol = protocol_label(group) + _difference(group, alike[_names(group)])
        rows.append(_summary_row(group, labels[group["run"], group["run_digest"]], task, protocol))
    return rows


def run_facts(row: Mapping[str, Any]) -> RunFacts:
    """Return what a row of results says about its run."""
    return RunFacts(row["run"], row["run_digest"], dataset=row["dataset"])


def _names(group: Mapping[str, Any]) -> tuple[str, ...]:
    columns = ("run", "run_digest", "task", "task_digest", "shots")
    return (*(str(group[column]) for column in columns), protocol_label(group))


# In what two groups of one run, task, shot count and protocol may differ.
DIFFERENCES = {
    "image_size": "{} px",
    "version": "version {}",
    "metric": "{}",
    "select": "chosen by {}",
    "config": "settings {:.4}",
    "dataset_digest": "dataset {:.4}",
}


def _difference(group: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> str:
    text = ""
    for column, form in DIFFERENCES.items():
        if len({other[column] for other in alike}) > 1:
            value = digest(group[column]) if column == "config" else str(group[column])
            text += ", " + form.format(value.removeprefix("sha256:"))
    return text


def _summary_row(group: Mapping[str, Any], run: str, task: str, protocol: str) -> SummaryRow:
    mean = group["mean"]
    low, high = (mean if group[end] is None else group[end] for end in ("ci_low", "ci_high"))
    return SummaryRow(
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


def protocol_label(row: Mapping[str, Any]) -> str:
    """Return how the protocol of a row is written; with how images were drawn, where that is not the default."""
    label = name = row["protocol"]
    with suppress(ValueError, AttributeError):  # a file of others may hold anything for settings
        label = protocol_text(name, json.loads(row["config"])) if name in protocols() else name
    return label if row["sampling"] in (None, "distinct") else f"{label}, drawn with replacement"


def summary_table(results: pa.Table) -> tuple[list[str], list[list[Any]]]:
    """Return a table for people, columns and lines: headline metrics in per cent, several runs side by side."""
    rows = summary_rows(results)
    runs = list(dict.fromkeys(row.run for row in rows))
    by_run: dict[tuple[str, ...], dict[str, SummaryRow]] = {}
    for row in rows:
        by_run.setdefault((row.task, row.shots, row.protocol, row.metric), {})[row.run] = row
    names = ["task", "shots", "protocol", "metric"]
    if len(runs) == 1:
        lines = [
            [row.task, row.shots, row.protocol, row.metric, row.text, row.seeds, f"{row.n:,}"] for row in rows
        ]
        return [*names, "mean ± half a 95 % interval", "draws", "test images"], lines
    texts = [[own[run].text if run in own else "–" for run in runs] for own in by_run.values()]
    return [*names, *runs], [[*key, *line] for key, line in zip(by_run, texts, strict=True)]
