"""Deterministic kernels: choose them, and learn which operators have none."""

from __future__ import annotations

import os
import random
import re
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
WARNED = re.compile(  # the three forms of torch's warning; the last is given once a process
    r"(?P<operator>\S.*?) does not have a deterministic implementation, but you set"
    r"|.* not deterministic because it uses (?P<library>CuBLAS)"
    r"|(?P<attention>.*? Attention) defaults to a non-deterministic algorithm",
    re.IGNORECASE,
)


def choose_kernels(deterministic: bool) -> None:
    """Choose the fastest kernels or deterministic ones, for the whole process.

    An operator without a deterministic kernel warns and still computes. So would fused attention: where torch only
    warns, it takes the fast backward pass, whose sums have no fixed order. So attention uses its plain formula.
    """
    if deterministic:
        os.environ.setdefault(CUBLAS, ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)


@contextmanager
def kernel_settings(deterministic: bool) -> Iterator[set[str]]:
    """Choose kernels within a context, and restore the settings afterwards.

    Yields:
        The names of the operators that have warned so far that they are not deterministic. Their warnings are not
        shown; other warnings are.
    """
    warned: set[str] = set()
    cublas, benchmark = os.environ.get(CUBLAS), torch.backends.cudnn.benchmark
    mode = torch.get_deterministic_debug_mode()
    flash, efficient = (
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )
    try:
        with _heard(warned):
            choose_kernels(deterministic)
            yield warned
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cuda.enable_flash_sdp(flash)
        torch.backends.cuda.enable_mem_efficient_sdp(efficient)
        if cublas is None:
            os.environ.pop(CUBLAS, None)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch and `random` for a while, with repeatable convolutions, and put all back as it was."""
    state = random.getstate()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


def nondeterminism_note(warned: Collection[str]) -> str:
    """Return the sentence that names the operators that warned."""
    return f"may not repeat bit for bit, for it used operators that do not: {', '.join(sorted(warned))}"


@contextmanager
def _heard(warned: set[str]) -> Iterator[None]:
    """Add to `warned` the operators whose warnings come, and pass all other warnings on."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def hear(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            match = WARNED.match(str(message))
            if match is None:
                show(message, category, filename, lineno, file, line)
            else:
                warned.add(_name(match))

        warnings.filterwarnings("always", message=WARNED.pattern, category=UserWarning)
        warnings.showwarning = hear
        yield


def _name(match: re.Match[str]) -> Any:
    return match["operator"] or match["library"] or match["attention"]
