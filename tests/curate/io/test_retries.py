"""Stores that fail for a moment, and what a record says of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from curate.errors import DataError, RecipeError
from curate.io import stores
from curate.io.records import environment

URL = "s3://bucket/file"


def failing(*errors: Exception) -> tuple[list[int], Callable[[], str]]:
    """Return the numbers of calls so far, and work that raises these errors, one a call, and then succeeds."""
    calls: list[int] = []

    def work() -> str:
        calls.append(len(calls))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "the bytes"

    return calls, work


def test_a_store_that_fails_twice_is_asked_again_after_growing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(stores.time, "sleep", waits.append)
    calls, work = failing(OSError("reset"), TimeoutError("slow"))
    assert stores.retry(URL, work) == "the bytes"
    assert (len(calls), waits) == (3, [stores.WAIT_S, 2 * stores.WAIT_S])


def test_a_store_that_fails_each_time_is_told_with_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores.time, "sleep", lambda _: None)
    calls, work = failing(*[OSError("connection reset")] * 9)
    with pytest.raises(
        stores.StoreError, match=r"s3://bucket/file: the store failed 3 times \(connection reset\)"
    ):
        stores.retry(URL, work)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (FileNotFoundError("gone"), FileNotFoundError),
        (RecipeError("wrong"), RecipeError),
        (PermissionError("closed"), DataError),
    ],
)
def test_an_answer_is_not_asked_for_again(error: Exception, raised: type[Exception]) -> None:
    calls, work = failing(error)
    with pytest.raises(raised):
        stores.retry(URL, work)
    assert len(calls) == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel's list of cores is Linux's")
def test_a_record_tells_python_the_cores_that_may_be_used_and_the_versions() -> None:
    told = environment("duckdb", "numpy")
    assert told["machine"]["python"] == platform.python_version()
    assert told["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert told["versions"] == {"duckdb": version("duckdb"), "numpy": version("numpy")}
