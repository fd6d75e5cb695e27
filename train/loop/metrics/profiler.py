"""A profile of the time within some steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.console import Console

FIRST = 10  # steps that are not profiled: kernels are chosen and caches filled
TRACE = "trace.json"  # for chrome://tracing or Perfetto
ROWS = 15


class Profiler:
    """Profile some steps, print the table and write the trace. A context; `step` is called after each.

    Args:
        steps: how many.
        out: the run's folder.
    """

    def __init__(self, steps: int, out: Path) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        self._by = "self_cpu_time_total"
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
            self._by = "self_cuda_time_total"
        self.out = out
        self._profile = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=FIRST, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
        )

    def __enter__(self) -> Profiler:
        self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profile.__exit__(*error)

    def step(self) -> None:
        """Count a step."""
        self._profile.step()

    def _write(self, profile: Any) -> None:
        profile.export_chrome_trace(str(self.out / TRACE))
        table = profile.key_averages().table(sort_by=self._by, row_limit=ROWS, max_name_column_width=50)
        Console(stderr=True, width=200).print(table, highlight=False, markup=False)
