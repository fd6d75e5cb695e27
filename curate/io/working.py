"""A working folder: one process at a time works in it; at the end it is kept, takes the result's place, or is gone."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from curate.errors import CurateError, RecipeError
from curate.io.files import is_unfinished, sync_folder

LOCK = "lock"

W = TypeVar("W", bound="WorkingFolder")


@contextmanager
def locked(file: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock of a file for as long as the block runs, or the process.

    Args:
        busy: what to say where another process holds it; without it that process is waited for.

    Raises:
        RecipeError: `busy`.
    """
    with open(file, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
            if not os.path.samestat(os.fstat(lock.fileno()), os.stat(file)):
                raise BlockingIOError  # its holder removed it meanwhile, and another process made its own
        except (BlockingIOError, FileNotFoundError):  # or nobody made one
            raise RecipeError(str(busy), hint="wait for it, or choose another folder") from None
        yield


class WorkingFolder:
    """A folder that one process at a time works in. A context: makes and locks it, and keeps or removes it at the end.

    What a process that was killed left half written is removed at the beginning.

    Attributes:
        keep: whether the folder stays at the end; an empty one never does.

    Args:
        path: the folder.
        busy: what to say where another process works in it.
        keep: as the attribute; a build keeps its folder from when the same command could go on there.
        result: the folder whose place it may take.
        unwritable: what is raised where the folder cannot be made.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy: str,
        keep: bool,
        result: Path | None = None,
        unwritable: type[CurateError] = RecipeError,
    ) -> None:
        self.path = path
        self.result = result
        self.keep = keep
        self._busy = busy
        self._unwritable = unwritable
        self._replaced = False  # whether it stands in another's place, and its own name is anybody's
        self._held = ExitStack()

    def __enter__(self: W) -> W:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(locked(self.path / LOCK, self._busy))
            if self.result:
                restore(self.result)
            for half in filter(lambda entry: is_unfinished(entry.name), self.path.rglob(".*")):
                half.unlink()
        except OSError as error:
            self._held.close()
            raise self._unwritable(
                f"{self.path}: cannot be written ({error.strerror})",
                hint="choose another --out, a folder that can be written",
            ) from error
        return self

    def __exit__(self, *_: Any) -> None:
        with self._held:
            if self._replaced:
                return
            if self.keep:
                with suppress(OSError):  # it holds something
                    (self.path / LOCK).unlink()
                    self.path.rmdir()
            else:
                shutil.rmtree(self.path, ignore_errors=True)

    def publish(self) -> None:
        """Put the folder in the result's place; what a kill leaves of that is mended when it is entered again."""
        out = self.result
        assert out is not None
        (self.path / LOCK).unlink(missing_ok=True)
        sync_folder(self.path)
        old = _old(out)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            os.rename(out, old)
        os.rename(self.path, out)
        self._replaced = True
        sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)


def restore(out: Path) -> None:
    """Put back the folder that a kill between the two renames of `WorkingFolder.publish` left aside."""
    if not out.exists() and _old(out).exists():
        os.rename(_old(out), out)


def _old(out: Path) -> Path:
    return out.parent / f".{out.name}.old"
