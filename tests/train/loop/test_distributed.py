"""Several processes learn what one would; one that is lost stops them all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from handmade import pictures
from several import environment, torchrun, torchrun_command

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.loop.distributed import Distributed, distributed_from
from train.runs import open_run

MakeDataset = Callable[..., Dataset]
TINY = [
    "--image-size",
    16,
    "--batch-size",
    12,
    "--epochs",
    3,
    "--workers",
    1,
    "--log-steps",
    1,
    "--model",
    "convnet",
]


def command(data: Dataset, out: Path, *more: object) -> list[object]:
    return ["train", "supervised", data.path, "--out", out, "--sync-norms", *TINY, *more]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_learn_what_one_would(
    dataset: MakeDataset, tmp_path: Path, run_curate: Callable[..., Any], ranks: int
) -> None:
    data = dataset(pictures(41))  # no multiple of the batch
    one = run_curate(*command(data, tmp_path / "of1"))
    assert one.exit_code == 0, one.stderr
    done = torchrun(ranks, *command(data, tmp_path / f"of{ranks}"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("steps,") == 1  # one of them speaks
    alone, shared = open_run(tmp_path / "of1"), open_run(tmp_path / f"of{ranks}")
    assert losses(shared.path) == pytest.approx(losses(alone.path), rel=1e-3)
    assert len(losses(shared.path)) == 9
    assert shared.info.samples_fingerprint == alone.info.samples_fingerprint
    assert (shared.info.samples_seen, shared.info.ranks) == (alone.info.samples_seen, ranks)
    for name, weights in shared.weights().items():
        if weights.is_floating_point():
            assert torch.allclose(weights, alone.weights()[name], atol=2e-3), name


def test_run_of_two_processes_goes_on_where_a_signal_stopped_it(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(96))
    whole = torchrun(2, *command(data, tmp_path / "whole", "--epochs", 15))
    assert whole.returncode == 0, whole.stderr
    arguments = command(data, tmp_path / "parts", "--epochs", 15)
    with subprocess.Popen(
        torchrun_command(2, *arguments), env=environment(), stderr=subprocess.PIPE
    ) as running:
        log = tmp_path / "parts" / "metrics.jsonl"
        while not (log.exists() and log.read_text().count("\n") >= 3):
            assert running.poll() is None
            time.sleep(0.01)
        for rank in _children(running.pid):
            os.kill(rank, signal.SIGUSR1)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert b"resume with: torchrun --nproc-per-node 2 --no-python curate train supervised" in said
    assert len(list((tmp_path / "parts" / "checkpoints").glob("*.pt"))) == 1
    assert torchrun(2, *arguments).returncode == 0
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert open_run(tmp_path / "parts").digest == open_run(tmp_path / "whole").digest


def test_killed_rank_ends_the_others_soon(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(96))
    arguments = command(data, tmp_path / "run", "--epochs", 100_000)
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        for rank in (0, 1):  # as srun starts them: nobody watches over them
            slurm = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_STEP_NUM_TASKS": "2"}
            where = environment(**slurm, MASTER_PORT="29617", SLURM_STEP_TASKS_PER_NODE="2")
            curate = torchrun_command(1, *arguments)[torchrun_command(1).index("--no-python") + 1 :]
            ranks.append(subprocess.Popen(curate, env=where, stderr=subprocess.PIPE))
        log = tmp_path / "run" / "metrics.jsonl"
        began = time.monotonic()
        while not (log.exists() and log.read_text()):
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        ranks[1].kill()
        assert ranks[0].wait(timeout=30) != 0
    finally:
        for process in ranks:
            process.kill()
            process.communicate()


def _children(pid: int) -> list[int]:
    """Return the processes that one started, and not those that they started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    )
    return [int(line) for line in listed.stdout.split()]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Distributed()),
        (
            {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
            Distributed(3, 8, 1, 2),
        ),
        (
            {
                "SLURM_PROCID": "5",
                "SLURM_STEP_NUM_TASKS": "6",
                "SLURM_LOCALID": "1",
                "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
            },
            Distributed(5, 6, 1, 2),
        ),
        (
            {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
            Distributed(),
        ),  # sbatch, without srun
    ],
)
def test_rank_is_read_from_torchrun_or_slurm(variables: dict[str, str], expected: Distributed) -> None:
    assert distributed_from(variables) == expected


@pytest.mark.parametrize("rank", ["two", "-1", "2"])
def test_rank_that_cannot_be_is_refused(rank: str) -> None:
    with pytest.raises(RecipeError, match=rf"RANK={rank}, WORLD_SIZE=2: no rank"):
        distributed_from({"RANK": rank, "WORLD_SIZE": "2"})


def test_batch_that_does_not_divide_is_refused(dataset: MakeDataset, tmp_path: Path) -> None:
    done = torchrun(2, *command(dataset(pictures(30)), tmp_path / "run", "--batch-size", 9))
    assert done.returncode == 1  # torchrun's own
    assert "error: rank 0 of 2, batches of 9\n  hint: " in done.stderr
    assert not (tmp_path / "run").exists()


def test_numbers_are_agreed_on_by_one_process_alone() -> None:
    one: Any = Distributed()
    assert one.max(3, 4) == (3, 4)
    assert one.sum_uint64(2**64 - 1) == 2**64 - 1
    assert one.first_failed(torch.tensor(0)) == 0
    assert one.first_failed(torch.tensor(7)) == 7
