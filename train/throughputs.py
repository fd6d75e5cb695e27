"""How fast a run is: samples a second, waiting, the share of the device's peak, memory."""

from __future__ import annotations

import time

import torch

from curate.memory import peak_bytes


class Meter:
    """Measures from one reading to the next.

    Args:
        device: whose memory and peak.
        flops_per_sample: of forward and backward; None where it is not known.
    """

    def __init__(self, device: torch.device, flops_per_sample: float | None = None) -> None:
        self.device = device
        self.flops_per_sample = flops_per_sample
        self.began = time.perf_counter()
        self.samples = 0
        self.waited_s = 0.0

    def add(self, samples: int, waited_s: float) -> None:
        """Count the samples of a step, of all ranks together."""
        self.samples += samples
        self.waited_s += waited_s

    def leave_out(self, seconds: float) -> None:
        """Do not count time that went into something else than steps."""
        self.began += seconds

    def read(self, ranks: int = 1) -> dict[str, float]:
        """Return the metrics since the last reading."""
        passed = time.perf_counter() - self.began
        rate = self.samples / passed
        metrics = {"samples_per_s": round(rate, 1), "data_wait": round(self.waited_s / passed, 4)}
        if self.flops_per_sample is not None:
            from train.flops import mfu

            share = mfu(self.flops_per_sample, rate / ranks, self.device)
            metrics |= {"mfu": round(share, 4)} if share is not None else {}
        self.began, self.samples, self.waited_s = time.perf_counter(), 0, 0.0
        return metrics | {"memory_gb": round(memory_bytes(self.device) / 1e9, 2)}


def memory_bytes(device: torch.device) -> int:
    """Return the most memory that was held: of the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()
