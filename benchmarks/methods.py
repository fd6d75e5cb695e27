"""What each method learns from the same images in the same time: python benchmarks/methods.py IMAGES [--seconds 60]

IMAGES holds train/CLASS/… and val/CLASS/…, or is a tar of such a folder. A ResNet-50 at 64 px is trained on the images
of train by `supervised`, `clip` (captions are templates around the class names) and `simclr`, each for as many whole
epochs as fit into the time on this machine; then a linear probe and the nearest neighbours are measured on the images
of val, as `curate transfer` does. One seed unless --seeds says more. What would begin or go on past --limit is
left out, and said to be. --dry takes a little network and few images.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from curate.builds.build import build
from curate.datasets.dataset import Dataset, open_dataset
from curate.recipes.recipe import parse
from train.methods import registry
from train.runs import Run
from train.transfer import transfer

COMMON = {"model": "resnet50", "image_size": 64, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05}
METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"batch_size": 256},
    "clip": {"batch_size": 512, "min_area": 0.25, "weight_decay": 0.1, "context_length": 32},
    "simclr": {
        "batch_size": 512,
        "min_area": 0.2,
        "blur_share": 0.0,
        "hidden_dim": 2048,
        "projection_dim": 128,
    },
}
DRY = {"model": "convnet", "image_size": 32, "batch_size": 32, "workers": 1}
DRY_METHODS: dict[str, dict[str, Any]] = {
    "supervised": {},
    "clip": {"text_width": 64, "text_layers": 1},
    "simclr": {"hidden_dim": 64},
}
TRIAL_STEPS = 40  # by which the speed is known; the first half chooses kernels


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("--only", default=",".join(METHODS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, each method and seed")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--classes", type=int, help="only so many, the first by name")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds, of all of it")
    parser.add_argument("--dry", action="store_true", help="a little network, a few images, two epochs")
    parser.add_argument(
        "--out", type=Path, help="where to keep datasets and runs; a temporary folder by default"
    )
    parser.add_argument("--markdown", type=Path, help="write the table here too, as it grows")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = told.out or Path(temporary)
        os.environ.setdefault("CURATE_CACHE", str(work / "cache"))
        classes = (8 if told.dry else told.classes) or None
        images = _unpacked(told.images, work / "images", classes, 40 if told.dry else None)
        recipe = {
            "name": "images",
            "source": {"folder": str(images)},
            "steps": [{"caption": {"templates": "openai-80"}}],
        }
        [built] = build(parse(recipe), work / "set", overlay=True)
        dataset = open_dataset(built.dataset.path)
        lines = [*_heading(dataset, told.dry)]
        print("\n".join(lines), flush=True)
        for line in _rows(dataset, images, work, told):
            print(line, flush=True)
            lines.append(line)
            if told.markdown:
                told.markdown.write_text("\n".join(lines) + "\n")


def _unpacked(source: Path, to: Path, classes: int | None, images: int | None) -> Path:
    """Return the folder that holds train and val: of so many classes and images of each, where given."""
    folder = source
    if source.is_file():
        with tarfile.open(source) as archive:
            archive.extractall(to, filter="data")
        folder = to
    if not (folder / "train").is_dir():
        [folder] = [one.parent for one in folder.glob("*/train")]
    if classes is images is None:
        return folder
    few = to.parent / "few"
    for split in ("train", "val"):
        for classed in sorted((folder / split).iterdir())[:classes]:
            (few / split / classed.name).mkdir(parents=True)
            for file in sorted(classed.iterdir())[:images]:
                shutil.copy(file, few / split / classed.name)
    return few


def _heading(dataset: Dataset, dry: bool) -> list[str]:
    what = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores"
    date = datetime.datetime.now(datetime.timezone.utc).date()
    network = (
        "convnet at 32 px, a dry run: the numbers mean nothing"
        if dry
        else "ResNet-50 at 64 px, bf16 on a GPU"
    )
    return [
        f"{date}: {what}, torch {torch.__version__}; {network};",
        f"{_train_rows(dataset):,} images of {len(dataset.classes)} classes to learn from; captions are templates",
        "around their names. Accuracies are top-1 on the images of val; the linear probe's C is chosen inside those of",
        "train.\n",
        "| method | seed | epochs | seconds | images/s | its own measure | linear probe | kNN, 20 |",
        "|---|---:|---:|---:|---:|---|---:|---:|",
    ]


def _rows(dataset: Dataset, images: Path, work: Path, told: argparse.Namespace) -> Iterator[str]:
    began = time.monotonic()
    for seed in range(told.seeds):
        for name in told.only.split(","):
            if time.monotonic() - began + told.seconds > told.limit:
                yield f"| {name} | {seed} | not measured: out of time | | | | | |"
                continue
            try:
                run, rate = _trained(name, dataset, work, seed, told.seconds, told.dry)
            except Exception as error:  # the other methods' numbers are not to be lost
                yield f"| {name} | {seed} | failed: {type(error).__name__}: {str(error)[:150]} | | | | | |"
                continue
            own = ", ".join(f"{k} {v:.1%}" for k, v in run.info.metrics.items() if k != "loss")
            epochs = run.info.samples_seen / max(1, _train_rows(dataset))
            table = transfer(
                run,
                [f"folder:{images}"],
                shots=["full"],
                seeds=1,
                protocols=["linear", "knn"],
                out=work / f"{name}-{seed}.parquet",
            )
            found = {row["protocol"]: row["value"] for row in table.to_pylist() if row["metric"] == "top1"}
            yield (
                f"| {name} | {seed} | {epochs:.0f} | {run.info.seconds:.0f} | {rate:,.0f} | {own} "
                f"| {found['linear']:.1%} | {found['knn']:.1%} |"
            )


def _trained(
    name: str, dataset: Dataset, work: Path, seed: int, seconds: float, dry: bool
) -> tuple[Run, float]:
    """Train for as many epochs as fit into the time; return the run and its images a second."""
    module = registry.method(name)
    options = {
        **COMMON,
        **METHODS[name],
        **(DRY | DRY_METHODS[name] if dry else {}),
        "seed": seed,
        "checkpoint_s": 1e9,
    }

    def run(out: Path, length: dict[str, Any]) -> Run:
        shutil.rmtree(out, ignore_errors=True)
        return module.train(dataset, out, registry.config_of(name, {**options, **length}, name), quiet=True)

    epochs = 2
    if not dry:
        trial = run(
            work / "trial", {"samples": TRIAL_STEPS * options["batch_size"], "log_steps": TRIAL_STEPS // 4}
        )
        epochs = max(1, int(seconds * _rate(trial, last=2) / _train_rows(dataset)))
    done = run(work / f"{name}-{seed}", {"epochs": epochs})
    return done, _rate(done)


def _rate(run: Run, last: int | None = None) -> float:
    """Return the median images a second over the lines of a run's log, or its last ones."""
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rates = [line["samples_per_s"] for line in lines if "samples_per_s" in line]
    return statistics.median(rates[-last:] if last else rates)


def _train_rows(dataset: Dataset) -> int:
    return sum(split != "val" for split in dataset.table(["split"])["split"].to_pylist())


if __name__ == "__main__":
    main()
