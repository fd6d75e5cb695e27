"""The figures of a report, drawn by matplotlib without a screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curate.datasets.queries import passed_over
from curate.errors import printable
from train.reports.findings import Findings
from train.reports.tables import shots_name

# Okabe and Ito's colours, which colour-blind people tell apart; scratch is grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#7A5195")
GREY = "#8A8F98"


def draw_all(findings: Findings, folder: Path) -> list[tuple[Path, str]]:
    """Draw every figure that there is data for; return each file with its caption."""
    import matplotlib

    matplotlib.use("Agg")
    with matplotlib.rc_context({"text.parse_math": False}):  # a `$` in a name is no formula
        return _draw_all(findings, folder)


def _draw_all(findings: Findings, folder: Path) -> list[tuple[Path, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw, caption in (
        (
            "worth.png",
            worth,
            "Points gained over no pre-training, on each task; error bars are 95 % intervals.",
        ),
        (
            "transfer.png",
            transfer,
            "Accuracy on each task against the images of each class that were given to learn it.",
        ),
        ("pretraining.png", pretraining, "Pre-training: loss against steps."),
    ):
        figure = draw(findings)
        if figure is not None:
            figure.savefig(folder / name, dpi=130, bbox_inches="tight")
            drawn.append((folder / name, caption))
            import matplotlib.pyplot as plt

            plt.close(figure)
    return drawn


def worth(findings: Findings) -> Any:
    """Bars: what each pre-training set added over scratch, a panel for each task and protocol."""
    names = [n for n in findings.measured if n not in findings.scratches]
    if not findings.scratches or not names:
        return None
    # A row of panels is as high as its bars are many, so that a bar is as thick in all of them.
    bars = [
        len(names) * len({c.shots for c in findings.summary if c.protocol == p}) for p in findings.protocols
    ]
    figure, panels = _panels(findings, width=4.2, heights=[0.3 * n + 1.0 for n in bars])
    for (protocol, task), axis in panels.items():
        position, ticks = 0.0, []
        for shots in reversed(findings.shots):
            for name in reversed(names):
                none = findings.row(findings.scratch_of(name) or "", task, shots, protocol)
                cell = findings.row(name, task, shots, protocol)
                if cell is None or none is None:
                    continue
                gain = (cell.mean - none.mean) * 100
                error = [[(cell.mean - cell.low) * 100], [(cell.high - cell.mean) * 100]]
                axis.barh(
                    position, gain, xerr=error, color=_colour(names, name), height=0.8, error_kw={"lw": 1}
                )
                ticks.append((position, f"{_shown(findings.label(name))}, {shots_name(shots)}"))
                position += 1
            position += 0.7
        axis.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], fontsize=8)
        axis.axvline(0, color="black", lw=0.8)
        axis.set_xlabel("points over scratch")
        axis.set_title(_shown(f"{task}, {protocol}"), fontsize=10)
    return figure


def transfer(findings: Findings) -> Any:
    """Lines: accuracy over shots, one a run, a panel for each task and protocol."""
    if not findings.summary:
        return None
    figure, panels = _panels(findings, width=4.2, heights=[3.4] * len(findings.protocols))
    names = [n for n in findings.measured if n not in findings.scratches]
    for (protocol, task), axis in panels.items():
        shown = [
            s for s in findings.shots if any(findings.row(n, task, s, protocol) for n in findings.measured)
        ]
        for offset, name in enumerate(findings.measured):
            cells = [(i, c) for i, s in enumerate(shown) if (c := findings.row(name, task, s, protocol))]
            if not cells:
                continue
            places = [i + (offset - len(findings.measured) / 2) * 0.03 for i, _ in cells]
            means = [c.mean * 100 for _, c in cells]
            errors = [[(c.mean - c.low) * 100 for _, c in cells], [(c.high - c.mean) * 100 for _, c in cells]]
            style = {
                "color": _colour(names, name),
                "ls": "--" if name in findings.scratches else "-",
                "marker": "o",
                "ms": 4,
            }
            axis.errorbar(
                places, means, yerr=errors, capsize=2, lw=1.4, label=_shown(findings.label(name)), **style
            )
        axis.set_xticks(range(len(shown)), [_shown(shots_name(s)) for s in shown])
        axis.set_xlim(-0.4, len(shown) - 0.6)
        axis.set_ylabel("accuracy, %")
        axis.set_title(_shown(f"{task}, {protocol}"), fontsize=10)
        axis.grid(axis="y", alpha=0.3)
    next(iter(panels.values())).legend(fontsize=8, frameon=False)
    return figure


def pretraining(findings: Findings) -> Any:
    """Lines: the loss of each run against steps."""
    import matplotlib.pyplot as plt

    curves = [
        (name, curve)
        for name, run in findings.run_by_name.items()
        if (curve := _losses(run.path / "metrics.jsonl"))
    ]
    if not curves:
        return None
    figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    names = [n for n in findings.names if n not in findings.scratches]
    for name, curve in curves:
        axis.plot(
            [c[0] for c in curve],
            [c[1] for c in curve],
            color=_colour(names, name),
            lw=1.4,
            label=_shown(name),
        )
    axis.set_xlabel("step")
    axis.set_ylabel("training loss")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False)
    return figure


def _losses(path: Path) -> list[tuple[float, float]]:
    """Return (step, loss) of a run's log, which ends where it cannot be read."""
    curve: list[tuple[float, float]] = []
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in map(json.loads, lines):
            if not isinstance(line, dict):
                raise ValueError("a line is no record")
            if "step" in line and "loss" in line:
                curve.append((float(line["step"]), float(line["loss"])))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        passed_over(f"{path}: {error}; its curve has {len(curve):,} points")
    return curve


def _shown(name: str) -> str:
    """Return a name for a figure, where a label that begins with `_` would be left out of the legend."""
    return printable(f" {name}" if name.startswith("_") else name)


def _panels(
    findings: Findings, *, width: float, heights: list[float]
) -> tuple[Any, dict[tuple[str, str], Any]]:
    """Lay out a panel for each protocol (down, in inches of height) and task (across)."""
    import matplotlib.pyplot as plt

    rows, columns = len(findings.protocols), len(findings.tasks)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns + 0.6, sum(heights)),
        layout="constrained",
        squeeze=False,
        height_ratios=heights,
    )
    return figure, {
        (protocol, task): axes[i][j]
        for i, protocol in enumerate(findings.protocols)
        for j, task in enumerate(findings.tasks)
    }


def _colour(names: list[str], name: str) -> str:
    return COLOURS[names.index(name) % len(COLOURS)] if name in names else GREY
