"""Kernels that repeat themselves bit for bit: choose them, and hear which operators have none."""

from __future__ import annotations

import os
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
    """Take the fastest kernels, or such as repeat themselves, in all of this process.

    An operator that has no such kernel warns and computes all the same. Fused attention would too: where torch only
    warns it takes the fast backward pass, whose sums have no order. So attention is then computed by its plain formula.
    """
    if deterministic:
        os.environ.setdefault(CUBLAS, ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_mem_efficient_sdp(False)


@contextmanager
def kernels_for(deterministic: bool) -> Iterator[set[str]]:
    """Choose kernels for a while, and put all back as it was.

    Yields:
        The names of the operators that warned so far that they may not repeat themselves. Their warnings are not
        shown; others are dealt with as before.
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


def said_of(warned: Collection[str]) -> str:
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
            found = WARNED.match(str(message))
            if found is None:
                show(message, category, filename, lineno, file, line)
            else:
                warned.add(_name(found))

        warnings.filterwarnings("always", message=WARNED.pattern, category=UserWarning)
        warnings.showwarning = hear
        yield


def _name(found: re.Match[str]) -> Any:
    return found["operator"] or found["library"] or found["attention"]
