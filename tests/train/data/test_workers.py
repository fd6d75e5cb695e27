"""The loader's processes: none is left behind, and what kills one is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from handmade import pictures
from processes import hears_ctrl_c
from several import FORKS

from curate.datasets.dataset import Dataset, open_dataset
from curate.errors import MissingError
from train.data.loader import Loader

MakeDataset = Callable[..., Dataset]

PROGRAM = """
import sys, time
from curate.datasets.dataset import open_dataset
from train.data.loader import Loader
loader = Loader(open_dataset(sys.argv[1]), batch_size=8, image_size=16, seed=0, augment=True, workers=3, cache="none")
batches = loader.batches()
next(batches)
print(*[process.pid for process in loader.processes], flush=True)
while True:
    next(batches)
    time.sleep(0.01)
"""


def loader(dataset: Dataset, **options) -> Loader:
    standard = {"batch_size": 8, "image_size": 16, "seed": 0, "augment": True, "workers": 2, "cache": "none"}
    return Loader(dataset, **{**standard, **options})


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pids: list[int]) -> None:
    while any(map(alive, pids)):
        time.sleep(0.01)


def feed(path: Path, pids: Connection) -> None:
    """What a process does that reads with three workers, and tells who they are."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what a shell starts in its background ignores it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    one = loader(open_dataset(path), workers=3)
    batches = one.batches()
    next(batches)
    pids.send([process.pid for process in one.processes])
    for _ in batches:
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_caller_however_it_ends(dataset: MakeDataset, number: int) -> None:
    data = dataset(pictures(64))
    ours, theirs = FORKS.Pipe()
    process = FORKS.Process(target=feed, args=(data.path, theirs))
    process.start()
    pids = ours.recv()
    assert len(pids) == 3
    assert all(map(alive, pids))
    os.kill(process.pid, number)
    process.join()
    wait_for_end(pids)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_with_a_program_that_ctrl_c_ends(dataset: MakeDataset) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(dataset(pictures(64)).path)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as stream:
        pids = [int(pid) for pid in stream.readline().split()]
        assert len(pids) == 3
        assert all(map(alive, pids))
        process.send_signal(signal.SIGINT)
        process.wait()
    wait_for_end(pids)


def test_a_worker_that_is_killed_is_an_error_that_says_so(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(64)))
    batches = one.batches()
    next(batches)
    os.kill(one.processes[0].pid, signal.SIGKILL)
    with pytest.raises(MissingError, match=r"ended from outside \(exit code -9\)"):
        sum(len(batch) for batch in batches)  # for ever, else
    assert not one.processes
    assert len(next(one.batches())) == 8  # and it can begin anew


def test_an_epoch_that_is_closed_early_leaves_workers_that_serve_the_next(dataset: MakeDataset) -> None:
    one, other = loader(dataset(pictures(64))), loader(dataset(pictures(64), "same"), workers=0)
    batches = one.epoch(0)
    next(batches)
    before = [process.pid for process in one.processes]
    batches.close()
    assert [b.keys for b in one.epoch(1)] == [b.keys for b in other.epoch(1)]
    assert [process.pid for process in one.processes] == before
    one.close()
    wait_for_end(before)


def test_two_epochs_at_once_do_not_mix(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(40)))
    alone = [[b.keys for b in one.epoch(e)] for e in (0, 1)]
    both = [(a.keys, b.keys) for a, b in zip(one.epoch(0), one.epoch(1), strict=True)]
    assert both == list(zip(*alone, strict=True))


def test_a_loader_that_is_dropped_ends_its_workers(dataset: MakeDataset) -> None:
    one = loader(dataset(pictures(40)))
    list(one.epoch(0))
    pids = [process.pid for process in one.processes]
    assert len(pids) == 2
    del one
    wait_for_end(pids)
