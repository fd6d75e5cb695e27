"""Several processes that share a run, on the CPU: torchrun's, or each started by itself.

They are forked from one that has imported what they need: a new Python would take longer to begin than to learn.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.launcher import LaunchConfig, elastic_launch

from train.cli import __main__ as cli
from train.methods import clip, simclr, supervised

FORKS = multiprocessing.get_context("forkserver")
NEEDED = [
    "pytest",
    "pyarrow.parquet",
    "torchvision",
    "timm.scheduler",
    "torch._dynamo",
    "torch.utils.flop_counter",
]
FORKS.set_forkserver_preload([*NEEDED, *(one.__name__ for one in (cli, clip, simclr, supervised))])


def torchrun(
    ranks: int, arguments: list[str], folder: Path, before: Callable[[], object] | None = None
) -> str:
    """Run `curate …` in so many processes under torchrun's agent; return what they printed.

    Args:
        ranks: processes.
        arguments: of the command line.
        folder: where their output goes.
        before: called in each rank before the command.

    Raises:
        AssertionError: the agent did not end well; what they printed is its message.
    """
    said = folder / "said.txt"
    agent = FORKS.Process(target=_agent, args=(ranks, arguments, said, before))
    agent.start()
    agent.join()
    text = said.read_text()
    assert agent.exitcode == 0, text
    return text


def _agent(ranks: int, arguments: list[str], said: Path, before: Callable[[], object] | None) -> None:
    specs = DefaultLogsSpecs(log_dir=str(said.parent))
    config = LaunchConfig(
        1,
        1,
        ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
        logs_specs=specs,
    )
    elastic_launch(config, rank)(arguments, said, before)


def rank(
    arguments: list[str], said: Path, before: Callable[[], object] | None = None, **environment: str
) -> None:
    """Run `curate …` in this process, as a process of several."""
    os.environ |= environment
    torch.set_num_threads(1)
    for number in (1, 2):
        os.dup2(os.open(said, os.O_CREAT | os.O_APPEND | os.O_WRONLY), number)
    sys.argv = ["curate", *arguments]
    if before:
        before()
    try:
        cli.main()
    except SystemExit as ended:
        if ended.code:
            raise


def together(ranks: int, function: Callable[..., None], *arguments: Any) -> None:
    """Call `function(rank, ranks, *arguments)` in so many processes that torchrun's variables describe."""
    torch.multiprocessing.start_processes(
        _one_of, (ranks, free_port(), function, arguments), ranks, start_method="forkserver"
    )


def _one_of(
    rank: int, ranks: int, port: int, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    told = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": ranks}
    os.environ |= {name: str(value) for name, value in told.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    function(rank, ranks, *arguments)


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
