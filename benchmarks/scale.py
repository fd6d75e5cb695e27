"""What larger sets cost: python benchmarks/scale.py [--small] [--only STAGE] [--keep FILE.json]

Unit costs of the whole way (select, fetch, shard, train) are measured in processes of their own, fitted on
all but the largest run of a stage, and held against the largest: 100 times the smallest. Costs are
core-seconds, the CPU time of a process and its children, for on a shared machine wall time says little.
Then the model says what 400 million, 2 and 5 billion rows take. --small measures a twentieth of everything,
where fixed costs hide the others: it shows that all of it runs. docs/scale.md has the output of the whole;
--keep keeps its measurements, and --from prints the tables again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _tables
import numpy as np
from tables import RECIPE, watched

TOP = Path(__file__).resolve().parents[1]
CURATE = Path(sys.executable).with_name("curate")
KINDS = {"small": (160, 120), "large": (640, 480)}  # images that are served and sharded
LIMITS = {"memory_gb": 16.0, "timeout_s": 1200.0}

# What no measurement here says, and where it is from.
IMAGE_BYTES = 130e3  # mean of LAION's images, recipes/entezari2023/sources/laion.yaml (img2dataset's readme)
SUCCESS = (
    0.6  # of LAION's links that still answer, the recipe's own assumption: issue 400 of img2dataset has 68 %
)
TABLE_BYTES = 3e12 / 12.8e9  # a row of DataComp's tables, recipes/datacomp/pool.yaml
PEAK_FLOPS, MFU = (
    989e12,
    0.4,
)  # H200, dense bf16, its datasheet; the share of it is an assumption, not a measurement
FLOPS = {"B/32": 44.1e9, "B/16": 123e9}  # a pair, forward and backward, docs/log.md
POOL_ROWS = 15e6  # of one fetch
SHARD_SAMPLES = 10_000
EPOCHS = 32  # of CLIP on 400 million
SIZES = {"400 M": 400e6, "2 B": 2e9, "5 B": 5e9}


@dataclass(frozen=True)
class Stage:
    """A stage: what its cost grows with, and the runs that are measured.

    Args:
        terms: what the cost is a sum over, besides a fixed one, in the order of a run's amounts.
        runs: amounts of each run; the last is predicted and not fitted.
        measure: amounts → seconds, core-seconds and peak memory.
        wall: whether the model is of wall seconds.
    """

    terms: tuple[str, ...]
    runs: list[tuple[float, ...]]
    measure: Callable[[Path, tuple[float, ...]], dict[str, Any]]
    wall: bool = False


def stages(*, small: bool) -> dict[str, Stage]:
    """Return the runs: of each stage at 1, 10 and 100 times, and one that tells its terms apart."""
    by = 0.05 if small else 1
    n, f, s, t = 1_000_000 * by, 300 * by, 1000 * by, 128 if small else 640
    small_bytes, large_bytes = (float(len(picture(k))) for k in ("small", "large"))
    return {
        "select": Stage(
            ("row read", "row drawn"), [(n, n / 20), (10 * n, n / 4), (10 * n, 2 * n), (100 * n, 5 * n)],
            select
        ),
        "fetch": Stage(
            ("image", "byte"),
            [(f, f * small_bytes), (10 * f, 10 * f * small_bytes), (10 * f, 10 * f * large_bytes),
             (100 * f, 100 * f * small_bytes)],
            fetch,
        ),
        "shard": Stage(
            ("image", "byte"),
            [(s, s * small_bytes), (10 * s, 10 * s * small_bytes), (10 * s, 10 * s * large_bytes),
             (100 * s, 100 * s * small_bytes)],
            shard,
        ),
        "train": Stage(("sample",), [(t,), (10 * t,), ((50 if small else 100) * t,)], train),
    }  # fmt: skip


def picture(kind: str) -> bytes:
    """Return a JPEG: noise for the large one, so that it has about the bytes of a photo on the web."""
    from PIL import Image

    width, height = KINDS[kind]
    generator = np.random.Generator(np.random.PCG64(0))
    coarse = generator.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    stream = io.BytesIO()
    quality = 92 if kind == "large" else 60
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def select(work: Path, amounts: tuple[float, ...]) -> dict[str, Any]:
    """Cut a slice of a table, as benchmarks/tables.py does."""
    rows, number = (int(a) for a in amounts)
    table = work / f"table-{rows}"
    _tables.write_table(table, rows)
    recipe = work / "slice.yaml"
    recipe.write_text(RECIPE.format(table=table, number=number))
    shutil.rmtree(work / "cache", ignore_errors=True)
    command = ["build", str(recipe), "--out", str(work / "slice"), "--overlay", "--replace", "-q"]
    found = _curate(command, work)
    return found | {"manifest_bytes": (work / "slice/manifest.parquet").stat().st_size}


def fetch(work: Path, amounts: tuple[float, ...]) -> dict[str, Any]:
    """Fetch an image so many times from a server on the loopback."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = int(amounts[0])
    kind = "large" if amounts[1] / amounts[0] > 20_000 else "small"
    images = work / "images"
    images.mkdir(exist_ok=True)
    for k in KINDS:
        (images / f"{k}.jpg").write_bytes(picture(k))
    with _web(images) as address:
        urls = [f"{address}/ok/{kind}.jpg?{i}" for i in range(rows)]
        table = {"URL": urls, "TEXT": [f"image {i}" for i in range(rows)]}
        pq.write_table(pa.table(table), work / "urls.parquet")
        pool = work / "pool"
        shutil.rmtree(pool, ignore_errors=True)
        options = ["--as", "laion", "--allow-loopback", "--per-host", "64", "-q"]
        found = _curate(["fetch", str(work / "urls.parquet"), "--out", str(pool), *options], work)
    return found


def shard(work: Path, amounts: tuple[float, ...]) -> dict[str, Any]:
    """Build shards of tars of images and texts, as a fetch leaves them."""
    images, size = int(amounts[0]), int(amounts[1] / amounts[0])
    pool = work / f"tars-{images}-{size}"
    if not pool.exists():
        write_tars(pool, images, "large" if size > 20_000 else "small")
    recipe = work / "shards.yaml"
    recipe.write_text(f"name: shards\nsource: {{shards: {pool}}}\n")
    shutil.rmtree(work / "cache", ignore_errors=True)
    shutil.rmtree(work / "shards", ignore_errors=True)
    found = _curate(["build", str(recipe), "--out", str(work / "shards"), "-q"], work)
    written = sum(f.stat().st_size for f in (work / "shards").rglob("*.tar"))
    return found | {"shard_bytes": written}


def write_tars(folder: Path, images: int, kind: str) -> None:
    """Write tars of 10,000 images and texts."""
    folder.mkdir()
    data = picture(kind)
    for start in range(0, images, SHARD_SAMPLES):
        with tarfile.open(folder / f"{start // SHARD_SAMPLES:05d}.tar", "w") as tar:
            for i in range(start, min(images, start + SHARD_SAMPLES)):
                for name, body in ((f"{i:09d}.jpg", data), (f"{i:09d}.txt", f"image {i}".encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(body)
                    tar.addfile(member, io.BytesIO(body))


def train(work: Path, amounts: tuple[float, ...]) -> dict[str, Any]:
    """Learn from so many samples with a network of 0.4 million parameters at 32 px."""
    dataset = work / "pairs"
    if not dataset.exists():
        write_tars(work / "pair-tars", 2000, "small")
        recipe = work / "pairs.yaml"
        recipe.write_text(f"name: pairs\nsource: {{shards: {work / 'pair-tars'}}}\n")
        _curate(["build", str(recipe), "--out", str(dataset), "-q"], work)
    shutil.rmtree(work / "run", ignore_errors=True)
    options = (
        "--model convnet --image-size 32 --text-width 64 --text-layers 1 --context-length 16 --device cpu"
    )
    command = ["train", "clip", str(dataset), "--out", str(work / "run"), *options.split()]
    return _curate([*command, "--samples", str(int(amounts[0])), "-q"], work)


def _curate(arguments: list[str], work: Path) -> dict[str, Any]:
    found = watched([str(CURATE), *arguments], work, **LIMITS)
    if "failed" in found:
        raise SystemExit(
            f"curate {' '.join(arguments)}: {found['failed']}\n{(work / 'said').read_text()[-3000:]}"
        )
    return found


@contextlib.contextmanager
def _web(images: Path) -> Iterator[str]:
    command = [sys.executable, str(TOP / "tests/support/webs.py"), str(images), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main() -> None:
    """Measure, fit, predict and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a twentieth of everything, in 3.5 core-minutes")
    parser.add_argument("--only", default="", help="stages, with commas; their measurements go into --keep")
    parser.add_argument("--work", type=Path, help="a folder to keep tables in, for the next time")
    parser.add_argument("--keep", type=Path, help="a file for the measurements")
    parser.add_argument("--from", dest="known", type=Path, help="print what a file of --keep says")
    told = parser.parse_args()
    plan = stages(small=told.small)
    measured: dict[str, list[dict[str, Any]]] = {}
    if told.known:
        measured = json.loads(told.known.read_text())
    elif told.keep and told.keep.exists():
        measured = json.loads(told.keep.read_text())
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        for name, stage in plan.items():
            if told.known or (told.only and name not in told.only.split(",")):
                continue
            measured[name] = []
            for amounts in stage.runs:
                work = Path(told.work or temporary) / name
                work.mkdir(parents=True, exist_ok=True)
                found = stage.measure(work, amounts)
                measured[name].append(found | {"amounts": amounts, "load": os.getloadavg()[0]})
                print(f"{name} {amounts}: {found}", file=sys.stderr, flush=True)
    if told.keep:
        told.keep.write_text(json.dumps(measured, indent=1))
    _print(plan, measured)


def _print(plan: dict[str, Stage], measured: dict[str, list[dict[str, Any]]]) -> None:
    names = ("duckdb", "pyarrow", "torch", "img2dataset")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, shared, Python {platform.python_version()}, ", end=""
    )
    print(", ".join(f"{name} {version(name)}" for name in names), "\n")
    models = {name: fit(runs) for name, runs in measured.items()}
    print("| stage | fixed, core-s | for each | |\n|---|---:|---:|---:|")
    for name, model in models.items():
        cells = [f"{model[0]:.2f}"]
        for term, cost in zip(plan[name].terms, model[1:], strict=True):
            unit, scale = ("ns", 1e9) if term == "byte" else ("µs", 1e6)
            cells.append(f"{term}: {cost * scale:,.2f} core-{unit}")
        print(f"| {name} | {' | '.join(cells)} |" + (" |" if len(cells) < 3 else ""))
    print("\n| stage | amounts | core-s | the model | error | wall s | peak GB | load |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, runs in measured.items():
        for i, run in enumerate(runs):
            said = predict(models[name], run["amounts"])
            what = ", ".join(f"{a:,.0f} {t}s" for a, t in zip(run["amounts"], plan[name].terms, strict=True))
            what = what.replace("row reads", "rows read").replace("row drawns", "drawn")
            error = f"{(said / run['cpu'] - 1) * 100:+.0f} %" + (", predicted" if i == len(runs) - 1 else "")
            print(
                f"| {name} | {what} | {run['cpu']:.2f} | {said:.2f} | {error} | {run['seconds']:.1f} "
                f"| {run['peak']:.2f} | {run['load']:.1f} |"
            )
    if set(plan) <= set(models):
        print()
        _extrapolate(models, measured)


def fit(runs: list[dict[str, Any]]) -> list[float]:
    """Return the fixed cost and that of each term, by least squares of relative errors, none below 0.

    The last run is not looked at.
    """
    used = runs[:-1]
    left = np.array([[1.0, *run["amounts"]] for run in used]) / np.array([[run["cpu"]] for run in used])
    scale = left.max(axis=0)
    active = list(range(left.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(left[:, active] / scale[active], np.ones(len(used)), rcond=None)
        if (found >= 0).all() or len(active) == 1:
            break
        active = [a for a, f in zip(active, found, strict=True) if f >= 0]
    model = np.zeros(left.shape[1])
    model[active] = found / scale[active]
    return model.tolist()


def predict(model: list[float], amounts: tuple[float, ...]) -> float:
    """Return the core-seconds of a run."""
    return model[0] + sum(cost * amount for cost, amount in zip(model[1:], amounts, strict=True))


def _extrapolate(models: dict[str, list[float]], measured: dict[str, list[dict[str, Any]]]) -> None:
    select_costs = models["select"][1:]
    fetch_core = models["fetch"][1] + models["fetch"][2] * IMAGE_BYTES
    shard_core = models["shard"][1] + models["shard"][2] * IMAGE_BYTES
    over = [(r["shard_bytes"] - r["amounts"][1]) / r["amounts"][0] for r in measured["shard"]][-1]
    index = measured["select"][-1]["manifest_bytes"] / measured["select"][-1]["amounts"][1]
    per_drawn = (measured["select"][2]["peak"] - measured["select"][1]["peak"]) / (
        measured["select"][2]["amounts"][1] - measured["select"][1]["amounts"][1]
    )
    columns: dict[str, list[str]] = {}

    def say(name: str, value: str) -> None:
        columns.setdefault(name, []).append(value)

    for rows in SIZES.values():
        images = rows * SUCCESS
        say("table, TB", f"{rows * TABLE_BYTES / 1e12:.2f}")
        say(
            "select a tenth: hours on 16 cores",
            f"{(rows * (select_costs[0] + select_costs[1] / 10)) / 16 / 3600:.2f}",
        )
        say("the tenth drawn, in memory or on disk, GB", f"{rows / 10 * per_drawn:.0f}")
        say("select all: hours on 16 cores", f"{rows * sum(select_costs) / 16 / 3600:.1f}")
        say("images that come, M", f"{images / 1e6:,.0f}")
        say("images, TB", f"{images * IMAGE_BYTES / 1e12:,.0f}")
        for gigabit in (1, 10, 100):
            per_second = gigabit * 1e9 / 8 / IMAGE_BYTES
            say(f"fetch at {gigabit} Gbit/s: hours", f"{images / per_second / 3600:,.0f}")
            say(f"fetch at {gigabit} Gbit/s: cores", f"{math.ceil(per_second / SUCCESS * fetch_core):,}")
        say("fetch: pools of 15 M rows", f"{math.ceil(rows / POOL_ROWS):,}")
        say("shard: hours on 16 cores", f"{images * shard_core / 16 / 3600:,.1f}")
        say("shards of 10,000", f"{math.ceil(images / SHARD_SAMPLES):,}")
        say("shards, TB", f"{images * (IMAGE_BYTES + over) / 1e12:,.0f}")
        say("manifests, GB", f"{images * index / 1e9:,.0f}")
        for name, flops in FLOPS.items():
            days = EPOCHS * images * flops / (PEAK_FLOPS * MFU) / 86400
            say(f"CLIP {name}, 32 epochs: GPU-days", f"{days:,.0f}")
        rate = PEAK_FLOPS * MFU / FLOPS["B/32"]
        say("reading for 64 GPUs at B/32: GB/s", f"{64 * rate * IMAGE_BYTES / 1e9:,.0f}")
        say("chance that two keys collide", f"{rows * rows / 2**129:.0e}")
        say("pairs that share a 64-bit chance", f"{rows * rows / 2**65:.3f}")
    print(f"| rows of the table | {' | '.join(SIZES)} |\n|---|{'---:|' * len(SIZES)}")
    for name, values in columns.items():
        print(f"| {name} | {' | '.join(values)} |")
    print(
        f"\nfetch: {fetch_core * 1e3:.2f} core-ms for {IMAGE_BYTES / 1e3:.0f} kB; shard: {shard_core * 1e3:.3f}"
    )
    print(
        f"a drawn row: {per_drawn * 1e9:.0f} bytes of memory; a sample in a shard: {over:.0f} bytes besides"
    )
    for name in ("fetch", "shard"):
        ten, hundred = measured[name][1], measured[name][-1]
        grown = (hundred["peak"] - ten["peak"]) / (hundred["amounts"][0] - ten["amounts"][0])
        print(f"{name}: {grown * 1e9:,.0f} bytes of memory more for each image, from 10 to 100 times")


if __name__ == "__main__":
    main()
