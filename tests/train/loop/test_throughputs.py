"""How long a GPU waits for data, by a simulated one: its queue, its clock, and a host that runs ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import pictures

from curate.datasets.dataset import Dataset
from train.loop.metrics import throughput
from train.loop.metrics.throughput import DeviceWait, HostWait, wait_meter
from train.loop.optim.train_step import TrainStep
from train.methods.supervised import SupervisedConfig, train


class Event:
    """What a GPU came to at a time of its clock."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.at_s = gpu, max(gpu.now_s, gpu.free_s)

    def query(self) -> bool:
        return self.at_s <= self.gpu.now_s

    def elapsed_time(self, end: Event) -> float:
        assert self.query()
        assert end.query(), "torch raises where an event is still to come"
        return 1e3 * (end.at_s - self.at_s)


class Gpu:
    """Works off a queue while the host goes on."""

    def __init__(self) -> None:
        self.now_s = self.free_s = 0.0

    def enqueue(self, seconds: float) -> None:
        self.free_s = max(self.now_s, self.free_s) + seconds

    def recorded(self) -> Event:
        return Event(self)

    def synchronize(self) -> None:
        self.now_s = max(self.now_s, self.free_s)


@pytest.mark.parametrize(
    ("step_s", "read_s", "copy_s", "lost_s"),
    [
        (10.0, 3.0, 0.0, 0.0),  # the host waits while the GPU works: nothing is lost
        (1.0, 3.0, 0.0, 2.0),  # only what is left of the wait when the GPU is done
        (1.0, 0.0, 0.5, 0.5),  # the host waits for nothing, and the GPU for the copy
        (1.0, 3.0, 0.5, 2.0),  # half a second for the last copy, and half for this one
    ],
)
def test_a_gpu_waits_from_the_end_of_a_step_to_the_next_batch(
    step_s: float, read_s: float, copy_s: float, lost_s: float
) -> None:
    gpu = Gpu()
    waiting = DeviceWait(gpu.recorded)
    for step in range(5):
        with waiting:
            gpu.now_s += read_s if step else 0.0  # the host is blocked by the loader
            gpu.enqueue(copy_s)
        gpu.enqueue(step_s)
    gpu.synchronize()
    assert waiting.read() == pytest.approx(copy_s + 4 * lost_s)
    assert waiting.read() == 0.0


def test_events_that_are_still_to_come_are_read_the_next_time() -> None:
    gpu = Gpu()
    waiting = DeviceWait(gpu.recorded)
    with waiting:
        gpu.now_s += 2.0
    gpu.enqueue(5.0)
    with waiting:
        gpu.enqueue(1.0)
    assert waiting.read() == 2.0  # and the host did not wait for the second
    gpu.synchronize()
    assert waiting.read() == 1.0


def test_work_of_the_host_between_two_steps_is_no_wait_for_data() -> None:
    gpu = Gpu()
    waiting = DeviceWait(gpu.recorded)
    for _ in range(3):
        with waiting:
            gpu.enqueue(0.0)
        gpu.enqueue(1.0)
        gpu.synchronize()
        gpu.now_s += 7.0  # a checkpoint is written
    assert waiting.read() == 0.0


def test_a_cpu_is_measured_by_the_hosts_clock_and_a_gpu_by_events() -> None:
    assert isinstance(wait_meter(torch.device("cpu")), HostWait)
    assert isinstance(wait_meter(torch.device("cuda")), DeviceWait)  # no event is made before the first step


def test_the_loop_reads_events_only_where_a_line_is_written(
    dataset: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    learn, read = TrainStep.step, DeviceWait.read

    class Traced(Event):
        def query(self) -> bool:
            seen.append("query")
            return True

        def elapsed_time(self, end: Event) -> float:
            return 0.0

    def recorded() -> Traced:
        seen.append("event")
        return Traced(Gpu())

    def learned(self: TrainStep, *args: Any) -> torch.Tensor:
        seen.append("learn")
        return learn(self, *args)

    def reading(self: DeviceWait) -> float:
        seen.append("read")
        return read(self) + 1e-9

    monkeypatch.setattr(throughput, "wait_meter", lambda device: DeviceWait(recorded))
    monkeypatch.setattr(TrainStep, "step", learned)
    monkeypatch.setattr(DeviceWait, "read", reading)
    config = SupervisedConfig(
        model="convnet", image_size=16, epochs=1, batch_size=8, workers=0, device="cpu", log_steps=2
    )
    train(dataset(pictures(32)), tmp_path / "run", config)
    step, line = ["event", "event", "learn"], ["read", "query", "query"]
    assert seen == [*step, *step, *line] * 2
