"""Files that are written whole or not at all, and the folder of the cache."""

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
    """Write a file so that a crash at any moment leaves the old content or the new one, never a part."""
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with unfinished(path) as beside:
        beside.write_bytes(data)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside a file, to write to; the end of the block renames it to the file.

    If the block fails, the old file stays. A killed process leaves a name that `is_unfinished` recognises.
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
    """Return the path of something to write below a folder.

    Raises:
        DataError: a name or a link leads out of the folder.
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
    """Tell whether a name is one of `unfinished`: a process writes it, or was killed while it did."""
    return name.startswith(".") and name.endswith(".tmp")


def clear_unfinished(*folders: Path) -> None:
    """Remove unfinished files of killed processes from some folders, not from their subfolders.

    Files that a process of this machine still writes stay, and so does anything else that ends in `.tmp`.
    """
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            continue
        for entry in folder.iterdir():
            if (match := _UNFINISHED.fullmatch(entry.name)) and not _runs(int(match[1])):
                entry.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, as another user
        return True
    return True


def sync_file(path: Path) -> None:
    """Flush a file's bytes to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Flush a folder's names to the disk."""
    sync_file(path)


def cache_folder() -> Path:
    """Return the folder of what can be made again: `$CURATE_CACHE`, else `~/.cache/curate`."""
    folder = os.environ.get("CURATE_CACHE")
    return (
        Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "curate"
    )
