"""The tables of a report, as lists of text, for a terminal, Markdown and HTML alike."""

from __future__ import annotations

from dataclasses import dataclass

from curate.io.markdown import markdown
from train.reports.findings import Findings
from train.runs import Run


@dataclass(frozen=True)
class ReportTable:
    """A table with a title, its columns, and what its numbers are.

    Args:
        best: (row, column) of the cells to print bold.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    best: frozenset[tuple[int, int]] = frozenset()

    def transposed(self) -> ReportTable:
        """Return its columns as rows, which is read better when there are more measurements than runs."""
        first, *rest = [list(line) for line in zip(self.columns, *self.rows, strict=True)]
        return ReportTable(
            self.title, first, rest, self.note, frozenset((j - 1, i + 1) for i, j in self.best)
        )

    def markdown(self) -> str:
        """Return it as Markdown."""
        lines = ["| " + " | ".join(map(markdown, self.columns)) + " |", "|" + "---|" * len(self.columns)]
        for i, row in enumerate(self.rows):
            shown = map(markdown, row)
            cells = [f"**{cell}**" if (i, j) in self.best else cell for j, cell in enumerate(shown)]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join([f"### {self.title}", "", *lines, "", self.note]).rstrip() + "\n"


def headline(findings: Findings) -> ReportTable:
    """One row a run: how it did in pre-training, and on each task and shot count, in per cent."""
    by_name = findings.run_by_name
    measured = [
        (task, shots, protocol)
        for protocol in findings.protocols
        for task in findings.tasks
        for shots in findings.shots
        if any(findings.row(name, task, shots, protocol) for name in findings.names)
    ]
    metrics = [m for m in METRICS if any(own_metric(findings, run, m) is not None for run in findings.runs)]
    columns = ["pre-trained on", "images", "classes", *(METRICS[m] for m in metrics)]
    columns += [f"{task} {shots_name(shots)} {protocol}" for task, shots, protocol in measured]
    rows: list[list[str]] = []
    means: list[list[float | None]] = []
    for name in findings.names:
        run = by_name.get(name)
        data = run.info.dataset if run else None
        row = [findings.label(name), f"{data.rows:,}" if data else "0", f"{data.classes}" if data else "–"]
        row += [percent(own_metric(findings, run, metric)) if run else "–" for metric in metrics]
        cells = [findings.row(name, *where) for where in measured]
        row += ["–" if c is None else c.text for c in cells]
        rows.append(row)
        means.append([None if c is None else c.mean for c in cells])
    best = set()
    for j in range(len(measured)):
        column = [(m[j], i) for i, m in enumerate(means) if m[j] is not None]
        best.add((max(column)[1], len(columns) - len(measured) + j))
    seeds = sorted({c.seeds for c in findings.summary})
    over = (
        f"{seeds[0]} seeds"
        if len(seeds) == 1
        else f"{' to '.join(map(str, seeds[:: len(seeds) - 1 or 1]))} seeds"
    )
    note = (
        f"Per cent, mean over {over} ± half a 95 % interval (over the seeds, or over the test images where that "
        "is wider); the whole test set at every shot count; bold is best."
    )
    if any(cell.by_test for cell in findings.summary):
        note += " † chosen by the test set itself, which flatters."
    return ReportTable(
        "What each pre-training set was worth",
        columns,
        rows,
        note if findings.summary else "",
        frozenset(best),
    )


def gaps(findings: Findings) -> ReportTable:
    """How far apart the best and the worst pre-training set are, and the worst from no pre-training."""
    rows = []
    names = [name for name in findings.names if name not in findings.scratches]
    for protocol in findings.protocols:
        for task in findings.tasks:
            for shots in findings.shots:
                cells = [c for name in names if (c := findings.row(name, task, shots, protocol))]
                if len(cells) < 2:
                    continue
                best, worst = max(cells, key=lambda c: c.mean), min(cells, key=lambda c: c.mean)
                none = findings.row(findings.scratch_of(worst.run) or "", task, shots, protocol)
                rows.append(
                    [task, shots_name(shots), protocol, f"{findings.label(best.run)} {percent(best.mean)}",
                     f"{findings.label(worst.run)} {percent(worst.mean)}", f"{(best.mean - worst.mean) * 100:.1f}",
                     f"{(worst.mean - none.mean) * 100:+.1f}" if none else "–"]
                )  # fmt: skip
    columns = ["task", "shots", "protocol", "best", "worst", "gap, points", "worst over scratch, points"]
    return ReportTable("How much the choice of pre-training set matters", columns, rows)


def datasets(findings: Findings) -> ReportTable:
    """What each dataset holds, and what its steps did."""
    rows = []
    for data in findings.datasets:
        steps = [s for s in data.info.ledger if s.step != "source"]
        steps_text = "; ".join(f"{s.step} {_arguments(s.arguments)}".strip() for s in steps) or "none"
        changed = sum(s.labels_changed for s in steps)
        kind = "overlay" if not data.sharded else f"{len(data.info.shards or [])} shards"
        rows.append(
            [
                data.name,
                f"{len(data):,}",
                str(len(data.classes)),
                f"{changed:,}",
                kind,
                steps_text,
                data.digest[7:19],
            ]
        )
    columns = ["dataset", "images", "classes", "labels changed", "bytes", "steps", "digest"]
    return ReportTable("The datasets", columns, rows)


def runs(findings: Findings) -> ReportTable:
    """What each run did."""
    rows = []
    for run in findings.runs:
        model = f"{run.spec.name}, {run.spec.image_size} px, {run.spec.stem} stem"
        done = [f"{run.info.samples_seen:,}", str(run.info.seed), f"{run.info.seconds:.0f}", _throughput(run)]
        rows.append([findings.name_of(run), run.info.method, model, *done, run.digest[7:19]])
    columns = ["run", "method", "model", "samples seen", "seed", "seconds", "samples/s", "weights"]
    return ReportTable("The runs", columns, rows)


METRICS = {"top1": "top-1", "coarse_top1": "coarse top-1"}  # of a run on its own pre-training task


def own_metric(findings: Findings, run: Run, metric: str) -> float | None:
    """Return a run's accuracy on held-out rows: as the experiment measured it, else as the run did."""
    return findings.accuracy.get((run.name, run.digest), run.info.metrics).get(metric)


def shots_name(shots: str) -> str:
    """Return "5-shot" or "full"."""
    return f"{shots}-shot" if shots.isdecimal() else shots


def percent(value: float | None) -> str:
    """Return a share as per cent."""
    return "–" if value is None else f"{value * 100:.1f}"


def _throughput(run: Run) -> str:
    return f"{run.info.samples_seen / run.info.seconds:,.0f}" if run.info.seconds else "–"


def _arguments(arguments: dict) -> str:
    shown = ", ".join(f"{k} {v}" for k, v in arguments.items())
    return shown if len(shown) <= 70 else f"{shown[:67]}…"
