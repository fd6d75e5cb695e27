"""Transfer beside a plain loop: python benchmarks/transfer.py DATA [--model resnet18] [--pixels 64] [--every 7]

DATA holds a folder a task, each with class folders, with train/ and test/ or without. One checkpoint (random weights:
they cost what trained ones cost) is measured on all tasks at 1, 5, 10 and all images a class, three draws each, by a
linear probe over twelve values of C and by nearest neighbours.

- `ours`: `train.transfer`, as `curate transfer` calls it, from files to `results.parquet`;
- `plain loop`: what a script does for each cell: read and decode the task (torchvision's transforms, a DataLoader with
  a process a core), compute features, choose C by scikit-learn's logistic regression on a held-out fifth, fit again and
  test; or its nearest neighbours. One cell in several is measured (`--every`), because all would take hours.

Both on the same machine and device, one after the other, several rounds; cells an hour, and the ratio within a round.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from train.loop.devices import pick_device
from train.models.registry import MEAN, STD, ModelSpec
from train.runs import Run, scratch_run
from train.transfer import Grid, Linear, Task, open_tasks, transfer
from train.transfer.protocols.knn import Knn
from train.transfer.protocols.linear import COARSE
from train.transfer.shots import TrainSubset, draw_shots, make_folds

SHOTS = (1, 5, 10, "full")
SEEDS = 3
VERSIONS = ("torch", "torchvision", "scikit-learn")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder of tasks")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--every", type=int, default=7, help="of the cells that the plain loop measures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    run = scratch_run(ModelSpec(options.model, "imagenet", 0, options.pixels))
    names = [f"folder:{path}" for path in sorted(options.data.iterdir()) if path.is_dir()]
    rounds = []
    for number in range(options.rounds):
        tasks = [
            task for name in names for task in open_tasks(name)
        ]  # anew, so that nothing is decoded already
        rounds.append((ours(run, tasks), plain(run, tasks, options.every, number)))
    lines = table(rounds, [task.name for task in tasks], options)
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Side:
    """What one side did in one round."""

    cells: int
    seconds: float
    accuracy: dict[tuple[str, str, int, str], float]  # by task, shots, seed, protocol

    @property
    def rate(self) -> float:
        """Cells an hour."""
        return 3600 * self.cells / self.seconds


def ours(run: Run, tasks: list[Task]) -> Side:
    """Measure every cell."""
    grid = Grid(SHOTS, SEEDS, [Linear(grid="coarse", one_fold_from=2), Knn()])
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = transfer(run, tasks, grid, out=Path(folder) / "results.parquet").to_pylist()
        seconds = time.perf_counter() - start
    found = {
        (r["task"], r["shots"], r["seed"], r["protocol"]): r["value"] for r in rows if r["metric"] == "top1"
    }
    return Side(len(found), seconds, found)


def plain(run: Run, tasks: list[Task], every: int, offset: int) -> Side:
    """Measure some of the cells, each from the files on."""
    cells = [(t, k, s, p) for t in tasks for k in SHOTS for s in range(SEEDS) for p in ("linear", "knn")]
    found = {}
    start = time.perf_counter()
    for task, shots, seed, protocol in cells[offset % every :: every]:
        found[task.name, str(shots), seed, protocol] = one_cell(run, task, shots, seed, protocol)
    return Side(len(found), time.perf_counter() - start, found)


class Pictures(Dataset):
    """Files of a task as a script reads them."""

    def __init__(self, task: Task, side: str, pixels: int) -> None:
        from torchvision.transforms import v2

        self.files = [Path(getattr(task, side).images.root) / r[0] for r in getattr(task, side).images.ranges]
        self.change = v2.Compose(
            [v2.Resize(pixels, v2.InterpolationMode.BICUBIC), v2.CenterCrop(pixels), v2.ToImage(),
             v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        return self.change(Image.open(self.files[index]).convert("RGB"))


@torch.no_grad()
def features(run: Run, task: Task, side: str) -> np.ndarray:
    """Return features of all images of a side."""
    device = pick_device("auto")
    backbone = run.backbone(device)
    loader = DataLoader(
        Pictures(task, side, run.spec.image_size), batch_size=256, num_workers=os.cpu_count() or 1
    )
    return torch.cat([backbone(batch.to(device)).cpu() for batch in loader]).numpy()


def one_cell(run: Run, task: Task, shots: int | str, seed: int, protocol: str) -> float:
    """Do a cell from the files on, and return its accuracy."""
    from sklearn.neighbors import KNeighborsClassifier

    train, test = features(run, task, "train"), features(run, task, "test")
    drawn = draw_shots(task.train.keys, task.train.targets, shots, seed)
    x, y = train[drawn.rows], drawn.targets
    if protocol == "linear":
        return _fitted(x, y, _chosen(x, y, drawn)).score(test, task.test.targets)
    weights = lambda apart: np.exp((1 - apart) / 0.07)  # noqa: E731
    neighbours = KNeighborsClassifier(min(20, len(x)), metric="cosine", weights=weights, algorithm="brute")
    return neighbours.fit(x, y).score(test, task.test.targets)


def _fitted(x: np.ndarray, y: np.ndarray, c: float):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)).fit(x, y)


def _chosen(x: np.ndarray, y: np.ndarray, drawn: TrainSubset) -> float:
    cut = make_folds(drawn, count=5)
    if not cut:
        return 1.0
    fit, held = cut[0].train, cut[0].validation
    return max(COARSE, key=lambda c: _fitted(x[fit], y[fit], c).score(x[held], y[held]))


def table(rounds: list[tuple[Side, Side]], tasks: list[str], options: argparse.Namespace) -> list[str]:
    """Return the conditions and the table."""
    gpu = torch.cuda.is_available()
    machine = torch.cuda.get_device_name() if gpu else platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    date = datetime.datetime.now(datetime.timezone.utc).date()
    lines = [
        f"{date}: {machine}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}; "
        f"{options.model} at {options.pixels} px on {', '.join(tasks)}; {len(rounds)} rounds",
        "",
        "| side | cells | seconds | cells/hour | range | ours is |",
        "|---|---:|---:|---:|---|---:|",
    ]
    ratio = statistics.median(a.rate / b.rate for a, b in rounds)
    for name, sides, beside in (
        ("ours, the whole grid", [a for a, _ in rounds], ""),
        ("plain loop, some of it", [b for _, b in rounds], f"× {ratio:.0f}"),
    ):
        rates = [side.rate for side in sides]
        seconds = statistics.median(side.seconds for side in sides)
        spread = f"{min(rates):,.0f}–{max(rates):,.0f}"
        lines.append(
            f"| {name} | {sides[0].cells} | {seconds:.0f} | {statistics.median(rates):,.0f} | {spread} | {beside} |"
        )
    apart = [
        abs(theirs.accuracy[cell] - mine.accuracy[cell]) * 100
        for mine, theirs in rounds
        for cell in theirs.accuracy.keys() & mine.accuracy.keys()
    ]
    lines += ["", f"Top-1 of the same cells is {statistics.mean(apart):.2f} points apart on average."]
    return lines


if __name__ == "__main__":
    main()
