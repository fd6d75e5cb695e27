"""Several processes that share a run, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def torchrun(ranks: int, *arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run `curate …` in so many processes under torchrun."""
    return subprocess.run(
        torchrun_command(ranks, *arguments),
        capture_output=True,
        text=True,
        timeout=200,
        env=environment(),
        **more,
    )


def torchrun_command(ranks: int, *arguments: object) -> list[str]:
    """Return what `torchrun` runs."""
    here = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    curate = Path(sys.executable).with_name("curate")
    return [*here, "--no-python", str(curate), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Return an environment of one thread a process, that is no rank itself."""
    mine = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RANK", "WORLD_"))
    }
    return {**mine, "OMP_NUM_THREADS": "1", **more}
