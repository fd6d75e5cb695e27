"""A ResNet-50's step, eager and compiled, and where its time goes: python benchmarks/steps.py --out FOLDER [--limit 90]

Each takes steps on one batch that lies on the device, as `train supervised` does: augment, normalise, learn. Written
are `steps.md`, the samples a second (median and range of the rounds), the seconds until the first step was done, and
the kernels that take most; and a trace of three steps each, for chrome://tracing or Perfetto. What would begin past
--limit is left out, and said to be. --dry takes a little network, and traces its graph without compiling it.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from _trainers import LARGE, Ours, Setup, timed, write_pool

from curate.datasets.dataset import Dataset

PROFILED = 3  # steps
ROUNDS = 5
MOST_BYTES = 16 << 20  # of a trace that is kept
NEEDED_S = {"eager": 15.0, "compiled": 45.0}  # or it is not begun
DRY = Setup("supervised", {"model": "convnet", "batch_size": 16, "image_size": 32}, pixels=37)


def main() -> None:
    """Measure, profile and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds, of all of it")
    parser.add_argument("--workers", type=int, default=max(1, min(16, (os.cpu_count() or 1) - 1)))
    parser.add_argument("--dry", action="store_true", help="a little network; the numbers mean nothing")
    options = parser.parse_args()
    end = time.monotonic() + options.limit
    options.out.mkdir(parents=True, exist_ok=True)
    if options.dry:
        torch.compile = functools.partial(torch.compile, backend="eager")  # type: ignore[assignment]
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        os.environ.setdefault("CURATE_CACHE", str(Path(work) / "cache"))
        setup = DRY if options.dry else LARGE["supervised resnet50"]
        dataset = write_pool(Path(work) / "pool", setup.pixels, 64 if options.dry else 2_304)
        for kind in ("eager", "compiled"):
            if end - time.monotonic() < (0 if options.dry else NEEDED_S[kind]):
                lines.append(f"{kind}: not measured: out of time\n")
            else:
                lines.append(_measured(kind, setup, dataset, options))
            print(lines[-1], flush=True)
            (options.out / "steps.md").write_text("\n".join(lines))


def _measured(kind: str, setup: Setup, dataset: Dataset, options: argparse.Namespace) -> str:
    """Return what a kind of step takes, as Markdown; its trace is written."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = Ours(setup, dataset, device, options.workers, kind == "compiled")
    first = timed(ours.synthetic, 1, device)
    timed(ours.synthetic, 5, device)
    steps = 2 if options.dry else 20
    rates = [steps * ours.batch_size / timed(ours.synthetic, steps, device) for _ in range(ROUNDS)]
    table = _profiled(ours, device, options.out / f"trace-{kind}.json.gz")
    del ours
    gc.collect()
    title = (
        f"{kind}: {statistics.median(rates):,.0f} samples/s ({min(rates):,.0f}–{max(rates):,.0f}), batches of "
        f"{setup.options['batch_size']}, first step after {first:.1f} s"
    )
    return f"{title}\n\n```\n{table}\n```\n"


def _profiled(ours: Ours, device: torch.device, trace: Path) -> str:
    """Write the trace of a few steps, and return the kernels that took most."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        timed(ours.synthetic, PROFILED, device)
    profile.export_chrome_trace(str(trace))
    if trace.stat().st_size > MOST_BYTES:
        trace.unlink()
        print(f"{trace.name}: over {MOST_BYTES >> 20} MiB, not kept", flush=True)
    by = f"self_{device.type}_time_total"
    return profile.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=60)


if __name__ == "__main__":
    main()
