"""Several processes learn what one would; one that is lost stops them all."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from campaigns import Campaign
from handmade import pictures
from several import FORKS, free_port, rank, torchrun

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.loop.distributed import Distributed, distributed_from
from train.methods import supervised
from train.runs import open_run

MakeDataset = Callable[..., Dataset]
TINY = "--model convnet --image-size 16 --batch-size 12 --epochs 3 --workers 1 --log-steps 1 --device cpu"


def command(data: Dataset, out: Path, *more: object) -> list[str]:
    return [
        "train",
        "supervised",
        str(data.path),
        "--out",
        str(out),
        "--sync-norms",
        *TINY.split(),
        *map(str, more),
    ]


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def in_step(step: int, number: int) -> None:
    """Let the second rank get a signal in one of its steps."""
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID")) != "1":
        return
    calls, normalize = itertools.count(1), supervised.normalize

    def signalled(images: torch.Tensor) -> torch.Tensor:
        if next(calls) == step:
            os.kill(os.getpid(), number)
        return normalize(images)

    supervised.normalize = signalled


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_learn_what_one_would(
    dataset: MakeDataset, tmp_path: Path, run_curate: Callable[..., Any], ranks: int
) -> None:
    data = dataset(pictures(41))  # no multiple of the batch
    one = run_curate(*command(data, tmp_path / "of1"))
    assert one.exit_code == 0, one.stderr
    said = torchrun(ranks, command(data, tmp_path / f"of{ranks}"), tmp_path)
    assert said.count(" samples seen; ") == 1  # one of them speaks
    alone, shared = open_run(tmp_path / "of1"), open_run(tmp_path / f"of{ranks}")
    assert losses(shared.path) == pytest.approx(losses(alone.path), rel=1e-3)
    assert len(losses(shared.path)) == 9
    assert shared.info.samples_fingerprint == alone.info.samples_fingerprint
    assert (shared.info.samples_seen, shared.info.ranks) == (alone.info.samples_seen, ranks)
    for name, weights in shared.weights().items():
        if weights.is_floating_point():
            assert torch.allclose(weights, alone.weights()[name], atol=2e-3), name


@pytest.mark.campaign
def test_torchrun_itself_starts_the_command(dataset: MakeDataset, tmp_path: Path, campaign: Campaign) -> None:
    starts = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
    ]
    arguments = command(dataset(pictures(41)), tmp_path / "run")
    done = subprocess.run(
        [*starts, str(Path(sys.executable).with_name("curate")), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    campaign.tell(done.stdout.strip())
    assert (len(losses(tmp_path / "run")), open_run(tmp_path / "run").info.ranks) == (9, 2)


def test_run_of_two_processes_goes_on_where_a_signal_stopped_it(dataset: MakeDataset, tmp_path: Path) -> None:
    data = dataset(pictures(41))
    torchrun(2, command(data, tmp_path / "whole"), tmp_path)
    arguments = command(data, tmp_path / "parts")
    said = torchrun(2, arguments, tmp_path, partial(in_step, 5, signal.SIGUSR1))
    assert "resume with: torchrun --nproc-per-node 2 --no-python curate train supervised" in said
    assert len(losses(tmp_path / "parts")) == 5
    assert len(list((tmp_path / "parts" / "checkpoints").glob("*.pt"))) == 1
    torchrun(2, arguments, tmp_path)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert open_run(tmp_path / "parts").digest == open_run(tmp_path / "whole").digest


def test_killed_rank_ends_the_others(dataset: MakeDataset, tmp_path: Path) -> None:
    arguments, port = command(dataset(pictures(41)), tmp_path / "run"), str(free_port())
    ranks = []
    for number in (0, 1):  # as srun starts them: nobody watches over them
        told = {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number), "SLURM_STEP_NUM_TASKS": "2"}
        told |= {"SLURM_STEP_TASKS_PER_NODE": "2", "MASTER_PORT": port}
        more = (arguments, tmp_path / "said.txt", partial(in_step, 5, signal.SIGKILL))
        ranks.append(FORKS.Process(target=rank, args=more, kwargs=told))
        ranks[-1].start()
    for process in ranks:
        process.join()
    assert ranks[1].exitcode == -signal.SIGKILL
    assert ranks[0].exitcode != 0
    assert len(losses(tmp_path / "run")) == 4
    assert not (tmp_path / "run" / "run.json").exists()


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
    arguments = command(dataset(pictures(30)), tmp_path / "run", "--batch-size", 9)
    # Each rank finds it, and torchrun ends the other when the first has.
    with pytest.raises(AssertionError, match=r"error: rank [01] of 2, batches of 9\n  hint: "):
        torchrun(2, arguments, tmp_path)
    assert not (tmp_path / "run").exists()


def test_numbers_are_agreed_on_by_one_process_alone() -> None:
    one: Any = Distributed()
    assert one.max(3, 4) == (3, 4)
    assert one.sum_uint64(2**64 - 1) == 2**64 - 1
    assert one.first_failed(torch.tensor(0)) == 0
    assert one.first_failed(torch.tensor(7)) == 7
