"""Bytes beside peers, in one run: python benchmarks/bytes.py [--only write,tars] [--rounds 5] [--workers 1,2]

Jobs: `write` (folder to shards), `tars` (tars to shards), `read` (64 px: read and decode), `crop` (full size: read,
decode, crop to 224 px), `open` and `start` (the first batch of 1.28 M rows, with and without opening the set), `memory`
(of a loader over 10 M rows).

    pip install -e '.[bench]' && pip install --no-deps mosaicml-streaming

`--folder` has class folders of small JPEGs, `--full` those of full-size ones or a tar of them; without, images are
generated. A peer that is not installed is said to be missing. Each measurement runs in a process of its own, imports
and opening of files not counted; the order of the sides changes from round to round, and all read the same warm files.
Prints the median with its range, and how many times as long as ours each takes. Absolute times mean little on a
shared machine; the ratios are what is claimed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import _readers
import _scales
import _writers
from _writers import Job, Side

PEERS = ("duckdb", "pyarrow", "torch", "torchvision", "Pillow", "webdataset", "litdata", "mosaicml-streaming",
         "datasets", "img2dataset")  # fmt: skip
TITLES = {
    "write": "folder to shards, {images:,} images of {kilobytes:.1f} kB",
    "tars": "tars to shuffled shards, {images:,} images of {kilobytes:.1f} kB",
    "read": "read and decode, batches of 256, {images:,} images of {kilobytes:.1f} kB",
    "crop": "read, decode and crop to 224 px, batches of 256, {images:,} images of {kilobytes:.1f} kB",
    "open": "opening and first batch, 1.28 M rows",
    "start": "first batch of an opened set, 1.28 M rows",
    "memory": "MB a worker, 10 M rows",
}
SIDES: dict[str, dict[str, Side]] = {
    "write": _writers.FROM_FOLDER,
    "tars": _writers.FROM_TARS,
    "read": _readers.SIDES,
    "crop": _readers.SIDES,
    "open": _scales.OPENINGS,
    "start": _scales.STARTS,
    "memory": _scales.MEMORIES,
}
DATA = {
    "crop": "full",
    "open": "scale",
    "start": "scale",
    "memory": "scale",
}  # job → its folder; "small" for the others
REPLICAS = 20  # of each full-size image


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--full", type=Path)
    parser.add_argument("--work", type=Path, help="where to write; a temporary folder by default")
    parser.add_argument("--side", nargs=5, help=argparse.SUPPRESS)  # a child's own call
    options = parser.parse_args()
    if options.side:
        child(*options.side)
        return
    _conditions(options.rounds)
    with tempfile.TemporaryDirectory(dir=options.work) as name:
        work = Path(name)
        for job in options.only.split(","):
            data = _prepared(job, work, options)
            for workers in map(int, options.workers.split(",")):
                _table(job, data, work, workers, options.rounds)


def _conditions(rounds: int) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {_version(name)}" for name in PEERS))
    print(
        f"warm cache, {rounds} rounds, a process a measurement; ours syncs what it writes, the others do not\n"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _prepared(job: str, work: Path, options: argparse.Namespace) -> Path:
    """Make what a job reads, once for all jobs that read the same; return its folder."""
    data = work / DATA.get(job, "small")
    if not (data / "info.json").exists():
        if data.name == "scale":
            _scales.prepare(data, _prepared("write", work, options))
            return data
        _writers.prepare(data, _full(options.full, work) if job == "crop" else _small(options.folder, work))
    if job in ("read", "crop") and not (data / "litdata").exists():
        _run(["peers", "-", str(data), "-", "1"])
    return data


def _small(folder: Path | None, work: Path) -> Path:
    if folder:
        return folder
    from curate.sources.synthetic.classes import POOL
    from curate.sources.synthetic.folders import write_folder

    write_folder(work / "pool", classes=POOL, images_per_class={"train": 417}, size=64, seed=0)
    return work / "pool"


def _full(source: Path | None, work: Path) -> Path:
    """Write each full-size image some times over, in a class folder of its own."""
    originals: dict[str, bytes] = {}
    if source is None:
        from curate.sources.synthetic.classes import POOL
        from curate.sources.synthetic.folders import write_folder

        write_folder(work / "drawn", classes=POOL, images_per_class={"train": 4}, size=448, seed=0)
        source = work / "drawn"
    if source.is_file():
        with tarfile.open(source) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None:
                    originals[Path(member.name).stem] = stream.read()
    else:
        originals = {p.stem: p.read_bytes() for p in sorted(source.rglob("*.*p*g"))}
    for name, data in originals.items():
        folder = work / "full-pool" / name
        folder.mkdir(parents=True)
        for i in range(REPLICAS):
            (folder / f"{name}_{i}.jpg").write_bytes(data)
    return work / "full-pool"


def _table(job: str, data: Path, work: Path, workers: int, rounds: int) -> None:
    sides = list(SIDES[job])
    measured: dict[str, list[float]] = {name: [] for name in sides}
    said: dict[str, str] = {}
    for turn in range(rounds):
        for name in sides[turn % len(sides) :] + sides[: turn % len(sides)]:
            if name in said:
                continue
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)
            answer = _run([job, name, str(data), str(out), str(workers)])
            if "value" in answer:
                measured[name].append(answer["value"])
            else:
                said[name] = answer["said"]
    info = json.loads((data / "info.json").read_text())
    title = TITLES[job].format(images=info["images"], kilobytes=info["bytes"] / info["images"] / 1e3)
    _print(title, measured, said, workers, info["images"] if DATA.get(job) != "scale" else None)


def _print(
    title: str, measured: dict[str, list[float]], said: dict[str, str], workers: int, images: int | None
) -> None:
    unit = "median MB" if title.startswith("MB") else "median s"
    print(f"| {title}; {workers} worker{'s' * (workers > 1)} | {unit} | range | images/s | beside ours |")
    print("|---|---|---|---|---|")
    ours = measured[next(iter(measured))]
    for name, values in measured.items():
        if name in said or not values:
            print(f"| {name} | {said.get(name, '-')} | | | |")
            continue
        middle = statistics.median(values)
        rate = f"{images / middle:,.0f}" if images else ""
        ratio = f"{middle / statistics.median(ours):.2f}" if ours else ""
        print(f"| {name} | {middle:.2f} | {min(values):.2f}–{max(values):.2f} | {rate} | {ratio} |")
    print(flush=True)


def _run(arguments: list[str]) -> dict[str, Any]:
    """Run a side in a process of its own; return what it measured or said."""
    command = [sys.executable, "-W", "ignore", __file__, "--side", *arguments]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled",
                   "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    child = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
    lines = [line for line in child.stdout.splitlines() if line.startswith('{"side"')]
    if child.returncode or not lines:
        return {"said": f"failed: {(child.stderr.strip().splitlines() or ['?'])[-1][:120]}"}
    return json.loads(lines[-1])


def child(job: str, name: str, data: str, out: str, workers: str) -> None:
    """Measure one side, and print the answer as JSON."""
    if job == "peers":
        _readers.prepare_peers(Path(data))
        print(json.dumps({"side": name, "value": 0}))
        return
    side = SIDES[job][name]
    try:
        work = side(Job(Path(data), Path(out), int(workers)))
    except ImportError as error:
        print(json.dumps({"side": name, "said": f"not installed ({error.name})"}))
        return
    began = time.perf_counter()
    answer = work()
    value = answer if job == "memory" else time.perf_counter() - began
    told: dict[str, object] = {"side": name, "value": value}
    images = json.loads((Path(data) / "info.json").read_text())["images"]
    if job in ("read", "crop") and answer != images:
        told = {"side": name, "said": f"gave {answer} of {images} images"}
    print(json.dumps(told), flush=True)
    os._exit(0)  # some peers wait for their threads, long after the work


if __name__ == "__main__":
    main()
