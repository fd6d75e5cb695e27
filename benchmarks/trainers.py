"""Trainers beside peers, in one run: python benchmarks/trainers.py [--only clip] [--rounds 9] [--json FILE]

For each configuration, samples a second of

- `ours, step`: forward, loss, backward and optimiser on inputs that are ready on the device, and beside it each peer's
  step on the same inputs: timm's, open_clip's, lightly's;
- `ours, synthetic`: the same from a batch that lies on the device as bytes: augmented, normalised, tokenised;
- `ours, end to end`: `train` as a user calls it, from a dataset of JPEGs on the disk.

MFU is the share of the GPU's peak in bf16 (`train.loop.metrics.flops`); bandwidth the share of its memory's peak that
the traffic of an eager convolutional network takes; neither is known for a CPU. Texts of the first line have all 77
tokens; those of the other two are cut to the longest of their batch, as `train clip` does.

    pip install -e '.[bench]'

A peer that is not installed is said to be missing. Each configuration is a process of its own, in which the sides take
turns; the median of the rounds is printed with its range, and how many times as fast as the peer ours is, which is
the median of the ratios within a round: on a shared machine those of one round had the same share of it. Without a
GPU (or with --tiny) small models at 32 to 64 px stand in: they show that everything runs, and the ratios on that CPU.
solo-learn is not among the peers: its newest release wants torch 1.9.1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONS = ("torch", "torchvision", "timm", "open_clip_torch", "lightly")
HEADER = """| {name} | samples/s | range | MFU | bandwidth | data wait | GB | ours is |
|---|---:|---|---:|---:|---:|---:|---:|"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="configurations whose name contains this; several with commas"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="of each side in each round; 0 for one step"
    )
    parser.add_argument("--steps", type=int, help="of the run end to end; 30 by default, 6 where tiny")
    parser.add_argument("--workers", type=int, help="of the loader; one a core by default, 16 at most")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds, of all configurations")
    parser.add_argument("--together", action="store_true", help="in one process: quick, for a dry run alone")
    parser.add_argument("--tiny", action="store_true", help="the small stand-ins, also on a GPU")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--markdown", type=Path, help="write the tables here too, as they grow")
    parser.add_argument(
        "--one", nargs=2, metavar=("NAME", "WORK"), help=argparse.SUPPRESS
    )  # a child's own call
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_measure(*options.one, options)), flush=True)
        return
    with tempfile.TemporaryDirectory() as work:
        _all(options, Path(work))


def _all(options: argparse.Namespace, work: Path) -> None:
    import torch
    from _trainers import LARGE, TINY

    options.tiny = options.tiny or not torch.cuda.is_available()
    setups = TINY if options.tiny else LARGE
    wanted = options.only.split(",")
    report: dict[str, Any] = {"conditions": _conditions(options), "configurations": {}}
    lines = [report["conditions"], ""]
    print(report["conditions"], end="\n\n", flush=True)
    end = time.monotonic() + options.limit
    for name in (name for name in setups if any(part in name for part in wanted)):
        answer = _answer(name, work, options, end - time.monotonic())
        report["configurations"][name] = answer
        lines += [*_table(name, answer, setups[name].goal), ""]
        print("\n".join(_table(name, answer, setups[name].goal)), end="\n\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")
        if options.markdown:
            options.markdown.write_text("\n".join(lines))


def _conditions(options: argparse.Namespace) -> str:
    import torch

    gpu = torch.cuda.is_available()
    what = torch.cuda.get_device_name() + ", bf16" if gpu else f"{platform.machine()}, fp32"
    versions = ", ".join(f"{name} {_version(name)}" for name in VERSIONS)
    date = datetime.datetime.now(datetime.timezone.utc).date()
    return (
        f"{date}: {what}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}; "
        f"{options.rounds} rounds{', torch.compile' if options.compile else ''}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _answer(name: str, work: Path, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Measure one configuration in a process of its own, which ends with the time that is left."""
    if seconds <= 0:
        return {"failed": "not measured: out of time"}
    steps = options.steps or (6 if options.tiny else 30)
    if options.together:
        return _measure(name, str(work), argparse.Namespace(**{**vars(options), "steps": steps}))
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, str(work)]
    command += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
    command += ["--steps", str(steps)]
    command += ["--workers", str(options.workers)] if options.workers is not None else []
    command += [flag for flag in ("--tiny", "--compile") if getattr(options, flag[2:])]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=min(seconds, 1800)
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"out of time after {seconds:.0f} s"}
    if child.returncode:
        return {"failed": (child.stderr.strip().splitlines() or ["?"])[-1][:300]}
    return json.loads(child.stdout.splitlines()[-1])


def _measure(name: str, work: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one configuration, in a process of its own."""
    import _peers
    import torch
    from _traffic import bandwidth_share
    from _trainers import LARGE, TINY, Ours, alternate, memory_gb, write_pool

    from curate.datasets.dataset import open_dataset
    from train.loop.devices import number_type
    from train.loop.metrics import flops

    setup = (TINY if options.tiny else LARGE)[name]
    pool = Path(work) / f"pool-{setup.pixels}"
    os.environ.setdefault("CURATE_CACHE", str(Path(work) / "cache"))
    images = 64 if options.tiny else 2_304
    dataset = (
        open_dataset(pool / "set") if (pool / "set").exists() else write_pool(pool, setup.pixels, images)
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    workers = min(16, os.cpu_count() or 1) if options.workers is None else options.workers
    ours = Ours(setup, dataset, device, workers, options.compile)
    sides = {"ours, step": ours.step, "ours, synthetic": ours.synthetic}
    said: dict[str, str] = {}
    for peer, model in setup.peers.items():
        job = _peers.Job(
            model, ours.images, ours.batch.labels, ours.tokens, len(dataset.classes),
            setup.options.get("stem") == "small", number_type("auto", device),
        )  # fmt: skip
        try:
            sides[peer] = _peers.PEERS[peer](job)
        except ImportError as error:
            said[peer] = f"not installed ({error.name})"
    gigabytes = {side: memory_gb(step, device) for side, step in sides.items()}
    seconds = alternate(sides, options.rounds, options.seconds, device)
    rates = {side: [ours.batch_size / one for one in found] for side, found in seconds.items()}
    told: dict[str, Any] = {"batch_size": ours.batch_size, "said": said, "sides": {}, **ours.costs()}
    for side, found in rates.items():
        told["sides"][side] = {"rates": found, "gb": gigabytes[side]}
    sides.clear()
    whole = ours.end_to_end(options.steps, Path(work) / "run")
    told["sides"]["ours, end to end"] = {"rates": [whole["samples_per_s"]], "data_wait": whole["data_wait"]}
    for one in told["sides"].values():
        rate = statistics.median(one["rates"])
        one["mfu"] = flops.mfu(told["flops"], rate, device)
        one["bandwidth"] = bandwidth_share(told["bytes"], rate, device) if "bytes" in told else None
    return told


def _table(name: str, answer: dict[str, Any], goal: int | None) -> list[str]:
    if "failed" in answer:
        return [f"{name}: {answer['failed']}"]
    title = f"{name}, batches of {answer['batch_size']}, {answer['flops'] / 1e9:.3g} GFLOP a sample"
    title += f", {answer['bytes'] / 1e6:.3g} MB" if "bytes" in answer else ""
    title += f"; goal on an H200 {goal:,}" if goal else ""
    lines = HEADER.format(name=title).splitlines()
    step, synthetic = (answer["sides"][side]["rates"] for side in ("ours, step", "ours, synthetic"))
    for side, one in answer["sides"].items():
        rate = statistics.median(one["rates"])
        beside = ""
        if not side.startswith("ours"):
            beside = f"× {_ratio(step, one['rates']):.2f}; synthetic × {_ratio(synthetic, one['rates']):.2f}"
        if side == "ours, end to end":
            beside = f"{rate / statistics.median(synthetic):.0%} of synthetic"
        spread = f"{min(one['rates']):,.0f}–{max(one['rates']):,.0f}" if len(one["rates"]) > 1 else ""
        gigabytes = f"{one['gb']:.1f}" if one.get("gb") else "–"
        shares = [_share(one.get(key)) for key in ("mfu", "bandwidth", "data_wait")]
        lines.append(f"| {side} | {rate:,.0f} | {spread} | {' | '.join(shares)} | {gigabytes} | {beside} |")
    lines += [f"| {peer} | {why} | | | | | | |" for peer, why in answer["said"].items()]
    return lines


def _ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    main()
