"""Folder to shards, beside peers, in one run: python benchmarks/builds.py [FOLDER]

FOLDER holds class folders of images; without it, 10,000 images are generated. Every side reads the same warm files;
the order of the sides changes from round to round. Prints the median of five rounds with its range, and the ratio to
ours. Absolute times mean little on a shared machine; the ratios are what is claimed.
"""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from curate.builds import build
from curate.recipes import parse
from curate.sources.folder import Folder
from curate.synthetic import POOL, write_folder

ROUNDS = 5


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as work_name:
        work = Path(work_name)
        os.environ["CURATE_CACHE"] = str(work / "cache")
        pool = Path(sys.argv[1]) if len(sys.argv) > 1 else _generated(work / "pool")
        files = sorted(p for p in pool.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        size = sum(p.stat().st_size for p in files)  # and warms the cache of names
        for path in files:
            path.read_bytes()
        names = ("duckdb", "pyarrow", "webdataset", "pydantic")
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
        print(", ".join(f"{name} {version(name)}" for name in names))
        print(f"{len(files):,} images, {size / 1e6:.1f} MB, warm cache, {ROUNDS} rounds\n")
        sides = {
            "curate build, 2 workers": lambda out: _ours(pool, out, 2),
            "curate build, 1 worker": lambda out: _ours(pool, out, 1),
            "webdataset.ShardWriter": lambda out: _shard_writer(files, pool, out),
            "GNU tar (no captions, no index)": lambda out: _tar(pool, out),
        }
        _table("folder to shards", sides, work, len(files))
        _table("reading image headers", {"curate index": lambda out: _index(pool, out)}, work, len(files))


def _table(title: str, sides: dict[str, Callable[[Path], None]], work: Path, images: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            out = work / "out"
            shutil.rmtree(out, ignore_errors=True)
            began = time.perf_counter()
            sides[name](out)
            times[name].append(time.perf_counter() - began)
    ours = statistics.median(next(iter(times.values())))
    print(f"| {title} | median s | range s | images/s | time beside ours |\n|---|---|---|---|---|")
    for name, measured in times.items():
        middle = statistics.median(measured)
        span = f"{min(measured):.2f}–{max(measured):.2f}"
        print(f"| {name} | {middle:.2f} | {span} | {images / middle:,.0f} | {middle / ours:.2f} |")
    print()


def _generated(folder: Path) -> Path:
    write_folder(folder, classes=POOL, images_per_class={"train": 417}, size=64, seed=0)
    return folder


def _ours(pool: Path, out: Path, workers: int) -> None:
    """The whole build: index from scratch, steps, manifest, shards, digests, fsync."""
    shutil.rmtree(os.environ["CURATE_CACHE"], ignore_errors=True)
    build(parse({"name": "bench", "source": {"folder": str(pool)}}), out, workers=workers)


def _shard_writer(files: list[Path], pool: Path, out: Path) -> None:
    """What a script does today: a class index, and a sample at a time."""
    import webdataset

    out.mkdir()
    classes = sorted({p.parent.name for p in files})
    label = {name: i for i, name in enumerate(classes)}
    with webdataset.ShardWriter(str(out / "%06d.tar"), maxcount=10_000, verbose=0) as writer:
        for path in files:
            key = str(path.relative_to(pool).with_suffix("")).replace(".", "_")
            sample = {"__key__": key, "jpg": path.read_bytes(), "cls": label[path.parent.name]}
            writer.write(sample | {"json": {"key": key, "file": str(path.relative_to(pool))}})


def _tar(pool: Path, out: Path) -> None:
    out.mkdir()
    subprocess.run(["tar", "-cf", str(out / "all.tar"), "-C", str(pool), "."], check=True)


def _index(pool: Path, out: Path) -> None:
    shutil.rmtree(os.environ["CURATE_CACHE"], ignore_errors=True)
    source = Folder(str(pool), None, "skip")
    source.index(fingerprint=source.fingerprint())


if __name__ == "__main__":
    main()
