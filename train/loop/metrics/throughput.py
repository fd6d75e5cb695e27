"""The speed of a run: samples a second, time spent waiting for data, MFU, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Protocol

import torch

from curate.io.memory import peak_bytes


class Wait(Protocol):
    """A context to take the next batch in; it sums up what was lost by waiting for it."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def read(self) -> float:
        """Return the seconds since the last reading."""


class HostWait:
    """The time until the host has a batch: where it computes itself, it does nothing meanwhile."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def __enter__(self) -> None:
        self._asked = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._seconds += time.perf_counter() - self._asked

    def read(self) -> float:
        """Return the seconds since the last reading."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class DeviceWait:
    """The time from where a GPU is done with a step to where it has the next batch: idle, or copying and cutting it.

    The host runs ahead of a GPU. It may wait for a batch while the GPU has work, and nothing is lost; it may find a
    batch at once while the GPU, long done, waits for it to be sent. So the GPU's own clock is read, from events
    in its queue before and behind what makes the batch. Nothing here waits for them.

    Args:
        recorded: puts an event into the queue and returns it.
    """

    def __init__(self, recorded: Callable[[], Any]) -> None:
        self._recorded = recorded
        self._pairs: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        self._done = self._recorded()

    def __exit__(self, *error: object) -> None:
        self._pairs.append((self._done, self._recorded()))

    def read(self) -> float:
        """Return the seconds since the last reading; what the GPU has not come to yet is for the next."""
        passed = list(takewhile(lambda pair: pair[1].query(), self._pairs))  # a queue: the last ones are left
        self._pairs = self._pairs[len(passed) :]
        return sum(done.elapsed_time(begins) for done, begins in passed) / 1e3


def wait_meter(device: torch.device) -> Wait:
    """Return what measures how long a device waits for data."""
    if device.type != "cuda":
        return HostWait()

    def recorded() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(device))
        return event

    return DeviceWait(recorded)


class Meter:
    """Measures from one reading to the next.

    Args:
        device: whose memory and peak.
        flops_per_sample: of forward and backward; None where it is not known.

    Attributes:
        waiting: the context to take the next batch in.
    """

    def __init__(self, device: torch.device, flops_per_sample: float | None = None) -> None:
        self.device = device
        self.flops_per_sample = flops_per_sample
        self.began = time.perf_counter()
        self.samples = 0
        self.waiting = wait_meter(device)

    def add(self, samples: int) -> None:
        """Count the samples of a step, of all ranks together."""
        self.samples += samples

    def leave_out(self, seconds: float) -> None:
        """Do not count time that went into something else than steps."""
        self.began += seconds

    def read(self, world_size: int = 1) -> dict[str, float]:
        """Return the metrics since the last reading."""
        passed = time.perf_counter() - self.began
        rate = self.samples / passed
        metrics = {"samples_per_s": round(rate, 1), "data_wait": round(self.waiting.read() / passed, 4)}
        if self.flops_per_sample is not None:
            from train.loop.metrics.flops import mfu

            share = mfu(self.flops_per_sample, rate / world_size, self.device)
            metrics |= {"mfu": round(share, 4)} if share is not None else {}
        self.began, self.samples = time.perf_counter(), 0
        return metrics | {"memory_gb": round(memory_bytes(self.device) / 1e9, 2)}


def memory_bytes(device: torch.device) -> int:
    """Return the most memory that was held: of the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()
