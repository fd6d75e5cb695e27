"""Files that are there wholly or not at all, and the cache for what can be made again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from curate.errors import DataError
from curate.io.paths import AnyPath, RemotePath

_UNFINISHED = re.compile(r"\..+\.([1-9][0-9]{0,8})\.tmp")  # as `unfinished` names them


def write_atomic(path: AnyPath, data: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old one or the new one, never a part."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with unfinished(path) as beside:
        beside.write_bytes(data)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a name to write a file under, beside its own, which it gets when the block ends.

    A block that fails leaves what was there. A process that is killed leaves a name that `is_unfinished` knows.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        sync_file(beside)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def inside(folder: Path, below: str) -> Path:
    """Return a path below a folder where something is to be written; no name and no link leads out of it.

    Raises:
        DataError: one does.
    """
    path = folder / below
    parts = PurePath(below).parts
    home = folder.resolve()
    if not parts or PurePath(below).is_absolute() or ".." in parts or "\0" in below:
        raise DataError(f"{below!r}: leads out of {folder}", hint="nothing is written there")
    if not path.parent.resolve().is_relative_to(home):
        hint = "remove the link, or write to another folder"
        raise DataError(f"{path}: a link leads out of {folder}, to {path.parent.resolve()}", hint=hint)
    return path


def is_unfinished(name: str) -> bool:
    """Tell whether a file has a name of `unfinished`: somebody writes it, or was killed while he did."""
    return name.startswith(".") and name.endswith(".tmp")


def clear_unfinished(*folders: Path) -> None:
    """Remove what killed processes left of files in some folders, not in what is below them.

    What a process of this machine still writes stays, and so does whatever else ends in `.tmp`.
    """
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        for entry in folder.iterdir():
            if (found := _UNFINISHED.fullmatch(entry.name)) and not _runs(int(found[1])):
                entry.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, and is somebody else's
        return True
    return True


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until a folder's names are on the disk."""
    sync_file(path)


def cache_folder() -> Path:
    """Return where things are kept that can be made again: `$CURATE_CACHE`, else `~/.cache/curate`."""
    folder = os.environ.get("CURATE_CACHE")
    return (
        Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "curate"
    )
