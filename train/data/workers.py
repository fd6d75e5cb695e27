"""Worker processes that fill memory which they share with the caller.

They are processes because decoders of small images return so soon that threads wait for the interpreter more than they
work. They share memory because images sent through a pipe, or through new memory each time, cost as much as decoding
them at 64 px. The memory is anonymous: it needs no room in /dev/shm, of which containers have little.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import signal
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from curate.errors import CurateError, MissingError

CHUNK = 32  # samples that one worker fills at least, where a batch has so many
PATIENCE_S = 5.0  # with workers that are to end

Reasons = dict[int, str]  # why images could not be made, by number
Fill = Callable[[np.ndarray, Any], Reasons]  # makes the images of a part


class Divisible(Protocol):
    """A step of some samples, of which each worker gets a part."""

    def __len__(self) -> int: ...

    def part(self, start: int = 0, stop: int | None = None) -> Any:
        """Return what a worker needs for the samples from `start` up to `stop`."""


S = TypeVar("S", bound=Divisible)


class Workers(Generic[S]):
    """A few processes, and slots of memory that they fill, each holding one step's images.

    They end when `close` is called, or when the object is collected.

    Args:
        fill: what a worker does with a part of a step; a worker is a copy of this process as it is now.
        count: processes; with 0 the caller fills the memory itself.
        shape: of one slot; its first side is the most samples that a step has.
    """

    def __init__(self, fill: Fill, count: int, shape: Sequence[int]) -> None:
        self.fill = fill
        samples = shape[0]
        self.chunk = min(samples, max(CHUNK, -(-samples // max(1, count))))
        slots = -(-2 * count * self.chunk // samples) + 1  # two parts a worker under way, and one slot in use
        size = int(np.prod([slots, *shape]))
        self.memory = np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)[:size].reshape(slots, *shape)
        self.processes: list[Any] = []
        self.pipes: list[Connection] = []
        self._turn = 0  # whose turn it is
        self._end = weakref.finalize(self, _end, self.pipes, self.processes, os.getpid())
        for _ in range(count):
            self._start()

    def run(self, steps: Iterable[S]) -> Generator[tuple[S, np.ndarray, Reasons], None, None]:
        """Yield the steps in order, while workers fill the next ones.

        Each step comes with its images, which are valid until the next step, and the reasons of those that are
        unreadable. An exception ends the processes, because an answer may be half received; closing early does not.

        Raises:
            MissingError: a worker was killed.
        """
        slots = itertools.cycle(range(len(self.memory)))
        waiting = zip(steps, slots, strict=False)
        ahead = max(1, len(self.memory) - 1)
        under_way: deque[tuple[S, int, list[tuple[int, int]]]] = deque()  # step, slot, (worker, first sample)

        def send() -> None:
            for step, slot in itertools.islice(waiting, ahead - len(under_way)):
                under_way.append((step, slot, []))
                self._send(*under_way[-1])

        sound = False
        try:
            send()
            while under_way:
                step, slot, parts = under_way[0]
                images = self.memory[slot, : len(step)]
                unreadable = {} if self.pipes or not len(step) else self.fill(images, step.part())
                while parts:
                    worker, start = parts.pop(0)
                    unreadable |= {start + i: reason for i, reason in self._receive(worker).items()}
                under_way.popleft()
                send()
                yield step, images, unreadable
            sound = True
        except (
            GeneratorExit
        ):  # what is under way is waited for, so that the next run hears only its own answers
            for _, _, parts in under_way:
                for worker, _ in parts:
                    self._drop(worker)
            sound = True
            raise
        finally:
            if not sound:
                self.close()

    def close(self) -> None:
        """End the processes."""
        self._end()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        self.pipes.append(ours)
        process = context.Process(target=self._serve, args=(theirs,), daemon=True, name="loader")
        process.start()
        theirs.close()  # so that the worker's end is seen here
        self.processes.append(process)

    def _send(self, step: S, slot: int, parts: list[tuple[int, int]]) -> None:
        if not self.pipes:
            return
        for start in range(0, len(step), self.chunk):
            stop = min(len(step), start + self.chunk)
            worker = self._turn % len(self.pipes)
            self._turn += 1
            try:
                self.pipes[worker].send((slot, start, stop, step.part(start, stop)))
            except OSError:
                raise self._killed(worker) from None
            parts.append((worker, start))

    def _receive(self, worker: int) -> Any:
        try:
            answer = self.pipes[worker].recv()
        except (EOFError, OSError):
            raise self._killed(worker) from None
        if isinstance(answer, CurateError):
            raise answer
        if isinstance(answer, _Failure):
            raise RuntimeError(f"a worker of the loader failed:\n{answer.text}")
        return answer

    def _drop(self, worker: int) -> None:
        with suppress(EOFError, OSError):  # the worker is gone, and its answer with it
            self.pipes[worker].recv()

    def _killed(self, worker: int) -> MissingError:
        process = self.processes[worker]
        process.join(1)
        self.close()
        return MissingError(
            f"a worker of the loader was ended from outside (exit code {process.exitcode})",
            hint="mostly that is a lack of memory: take fewer workers; the same command goes on from the last "
            "checkpoint",
        )

    def _serve(self, pipe: Connection) -> None:
        """Fill the parts that come through the pipe, until its other end closes. This runs in the worker."""
        for caller in self.pipes:  # so that the caller's end is seen here, its own copies notwithstanding
            caller.close()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(
                number, signal.SIG_IGN
            )  # a terminal or Slurm tells all processes; the caller decides
        torch.set_num_threads(1)
        heard: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_listen, args=(pipe, heard), daemon=True).start()
        while (message := heard.get()) is not None:
            slot, start, stop, part = message
            answer: Any
            try:
                answer = self.fill(self.memory[slot, start:stop], part)
            except CurateError as error:
                answer = error
            except Exception:
                answer = _Failure(traceback.format_exc())
            try:
                pipe.send(answer)
            except OSError:
                return


class _Failure(NamedTuple):
    text: str


def _listen(pipe: Connection, heard: SimpleQueue[Any]) -> None:
    """Receive messages until the other end closes.

    They are received at once, not when the worker is ready. Else caller and worker could each wait for the other to
    receive, where both send more than the pipe holds (200 kB).
    """
    with suppress(EOFError, OSError):
        while (message := pipe.recv()) is not None:
            heard.put(message)
    heard.put(None)


def _end(pipes: list[Connection], processes: list[Any], owner: int) -> None:
    if os.getpid() != owner:  # a copy of the caller, whose workers they are not
        return
    for pipe in pipes:
        with suppress(OSError):  # it is gone already
            pipe.send(None)
            pipe.close()
    until = time.monotonic() + PATIENCE_S
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    pipes.clear()
    processes.clear()
