"""Where a build works until it is done: a folder beside the result, locked, then renamed into its place."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from curate.datasets import BUILD, CARD, INFO, MANIFEST, SHARDS
from curate.errors import CurateError, RecipeError
from curate.files import sync_folder, write_atomic
from curate.ranges import is_remote

OURS = {INFO, MANIFEST, BUILD, CARD, SHARDS, "gallery.html"}


class Staging:
    """The working folder `.NAME.building` of a result. A context; at its end the folder is gone, or kept to go on.

    A second build of the same result is refused while this one holds the lock. What another plan left behind
    is cleared; what the same plan left (it was killed) is gone on with.

    Args:
        out: the result's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.parent / f".{out.name}.building"
        self.keep = False  # whether to leave the folder for the same command to go on

    def __enter__(self) -> Staging:
        if Path.cwd().is_relative_to(self.out.resolve()):
            raise RecipeError(
                f"{self.out}: is the current folder, and would be replaced",
                hint="run this from another folder",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / "lock", "w")
        except OSError as error:
            raise RecipeError(
                f"{self.path}: cannot be written ({error.strerror})", hint="choose another --out"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise RecipeError(
                f"{self.out}: another build is writing it", hint="wait for it, or choose another --out"
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        if not self.keep or isinstance(error, CurateError | OSError):
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def begin(self, digest: str) -> None:
        """Clear what another plan left in the folder, and mark it as this plan's."""
        mark = self.path / "plan.json"
        try:
            same = json.loads(mark.read_text()) == digest
        except (OSError, ValueError):
            same = False
        if not same:
            for entry in self.path.iterdir():
                if entry.name != "lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            write_atomic(mark, json.dumps(digest).encode())

    def publish(self) -> None:
        """Put the finished folder in the result's place."""
        for name in ("plan.json", "parts", "work", "lock"):
            entry = self.path / name
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        sync_folder(self.path)
        old = _old(self.out)
        shutil.rmtree(old, ignore_errors=True)
        if self.out.exists():
            os.rename(self.out, old)
        os.rename(self.path, self.out)
        sync_folder(self.out.parent)
        shutil.rmtree(old, ignore_errors=True)


def restore(out: Path) -> None:
    """Put back the set that a kill between the two renames of `publish` left aside."""
    if not out.exists() and _old(out).exists():
        os.rename(_old(out), out)


def _old(out: Path) -> Path:
    return out.parent / f".{out.name}.old"


def refuse_foreign(out: Path) -> None:
    """Refuse to write over what is not a dataset of ours, or holds more than one.

    Raises:
        RecipeError: the folder is somebody else's, or `out` is no folder.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise RecipeError(f"{out}: is a file", hint="give --out a folder")
    names = {entry.name for entry in out.iterdir()}
    if names and INFO not in names:
        raise RecipeError(
            f"{out}: holds {len(names)} things and is no dataset (such as {min(names)!r}); nothing was touched",
            hint="give --out a new folder",
        )
    foreign = names - OURS
    if foreign:
        raise RecipeError(
            f"{out}: holds {min(foreign)!r}, which is not part of a dataset; nothing was touched",
            hint="move it elsewhere, or give --out a new folder",
        )


def refuse_source(out: Path, home: str) -> None:
    """Refuse to write over what the recipe reads: the result would stand on bytes that are gone.

    Raises:
        RecipeError: `home`, where the source lies, is `out` or inside it.
    """
    if not is_remote(home) and Path(home).resolve().is_relative_to(out.resolve()):
        raise RecipeError(f"{out}: the recipe would replace its own source", hint="choose another --out")
