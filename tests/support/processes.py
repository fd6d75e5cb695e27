"""The command line in processes of their own, without a new Python for each: they are forked from one that has it all.

That one is `multiprocessing`'s fork server, a single thread that imports the command line once; what it forks is as
a new process to all that can be tested: it has its own signals, files, threads and engines, and can be killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

_server = multiprocessing.get_context("forkserver")
_PRELOADED = [
    "train.cli.__main__",
    "curate.builds.build",
    "curate.wordnet",
    "pyarrow.compute",
    "pyarrow.pandas_compat",
    "pandas",
]
_server.set_forkserver_preload(_PRELOADED)


class Command:
    """The command line as a user starts it: `Command(folder, "build", recipe, "--out", out)`.

    Args:
        folder: for what it prints.
        arguments: of the command line.
        dies_before: the file whose publishing under its name it does not live to see.
        env: more variables of its environment.
    """

    def __init__(
        self, folder: Path, *arguments: object, dies_before: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self._out, self._err = folder / "stdout.txt", folder / "stderr.txt"
        environment = {**os.environ, **(env or {})}
        told = (list(map(str, arguments)), environment, str(self._out), str(self._err), dies_before)
        self._process = _server.Process(target=_run, args=told, daemon=True)
        self._process.start()

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    @property
    def running(self) -> bool:
        return self._process.exitcode is None

    def wait(self) -> int:
        """Wait for its end; return its exit code, -9 for one that was killed."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def kill(self) -> None:
        """Kill it and wait for its end."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def send_signal(self, number: signal.Signals) -> None:
        if self.running:
            assert self._process.pid is not None
            os.kill(self._process.pid, number)


def _run(
    arguments: list[str], environment: dict[str, str], out: str, err: str, dies_before: str
) -> None:  # in the process
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if dies_before:
        _die_before(dies_before)
    sys.argv = ["curate", *arguments]
    from train.cli.__main__ import main

    main()


def _die_before(name: str) -> None:
    """Have this process killed just before it gives a file its name, here or in a store."""
    from curate.builds.shards import writing
    from curate.io.paths import RemotePath

    rename, send, pack = os.replace, RemotePath.write_bytes, writing.TarWriter

    def die(path: object) -> None:
        if str(path).rpartition("/")[2] == name:
            os.kill(os.getpid(), signal.SIGKILL)

    def replace(old: str | Path, new: str | Path) -> None:
        die(new)
        rename(old, new)

    def write_bytes(self: RemotePath, data: bytes, **how: bool) -> int:
        die(self)
        return send(self, data, **how)

    def tar(path: object, *arguments: object) -> Any:
        die(path)
        return pack(path, *arguments)

    os.replace, RemotePath.write_bytes, writing.TarWriter = replace, write_bytes, tar


def end_server() -> None:
    """End the fork server and wait for it, so that nothing is left running and its time counts as the tests'."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def hears_ctrl_c() -> None:
    """Let a child hear Ctrl-C, which what runs in a shell's background does not: for `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
