"""Where a build works until it is done: a folder beside the result, locked, then renamed into its place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from curate.datasets.dataset import BUILD, CARD, INFO, MANIFEST, PARTS, SHARDS
from curate.errors import CurateError, DataError, RecipeError
from curate.io.files import cache_folder, clear_unfinished, is_unfinished, write_atomic
from curate.io.paths import AnyPath, RemotePath
from curate.io.stores import StoreError, is_remote, is_web
from curate.io.working import LOCK, WorkingFolder

OURS = {INFO, MANIFEST, BUILD, CARD, SHARDS, "gallery.html", ".nv-meta", "croissant.json", "wids.json"}

WITHIN = (SHARDS, ".nv-meta")  # folders of a dataset that sidecars are written into, besides its own

PLAN = "plan.json"  # names the plan that an unfinished build belongs to
TO_GO_ON = {LOCK, PLAN, SHARDS, PARTS}  # what of a killed build is used again; the rest is made anew


class Staging(WorkingFolder):
    """The working folder `.NAME.building` of a result. A context.

    What another plan left behind is cleared; what the same plan left (it was killed) is gone on with.

    Attributes:
        out: the result's folder.
        target: where shards are written; here the working folder.
    """

    def __init__(self, out: Path) -> None:
        work = out.parent / f".{out.name}.building"
        super().__init__(work, busy=f"{out}: another build is writing it", keep=False, result=out)
        self.out, self.target = out, work

    def __enter__(self) -> Staging:
        if Path.cwd().is_relative_to(self.out.resolve()):
            raise RecipeError(
                f"{self.out}: is the current folder, and would be replaced",
                hint="run this from another folder",
            )
        if self.path.is_symlink():  # what was unpacked beside a dataset may lead to any folder, to be cleared
            raise RecipeError(f"{self.path}: is a link, and builds work there", hint="remove it")
        for entry in self.path.iterdir() if self.path.is_dir() else ():  # nor is anything written through one
            if entry.is_symlink():
                entry.unlink()
        return super().__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, CurateError | OSError) and not isinstance(error, StoreError):
            self.keep = False
        super().__exit__(kind, error, trace)

    def begin(self, digest: str, *, replaces: bool = True) -> None:
        """Clear what this plan cannot go on with, and mark the folder as this plan's.

        That is all that another plan left; of what this one left, all but the finished shards.

        Args:
            replaces: whether what stands in `out` goes; nothing of it does here before `publish`.
        """
        same = _is_of(self.path, digest)
        for entry in self.path.iterdir():
            if entry.name not in (TO_GO_ON if same else {LOCK}):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if not same:
            write_atomic(self.path / PLAN, json.dumps(digest).encode())

    def publish(self) -> None:
        """Put the finished folder in the result's place."""
        gone = self.path.with_name(f"{self.path.name}-gone")
        for name in (PARTS, "work"):  # renamed first: a worker that was lost may still be writing into it
            if (self.path / name).is_dir():
                shutil.rmtree(gone, ignore_errors=True)
                os.rename(self.path / name, gone)
                shutil.rmtree(gone, ignore_errors=True)
        (self.path / PLAN).unlink(missing_ok=True)
        super().publish()

    def tidy(self) -> None:
        """Clear what killed exports left in the result; what is beside it is the business of `__exit__`."""
        clear_unfinished(*(self.out / name for name in ("", *WITHIN)))


class RemoteStaging(WorkingFolder):
    """What `Staging` does, for a result in a store, where nothing can be renamed. A context.

    Shards are written to where they stay; `dataset.json`, written last, makes a dataset of them. What is small is
    made in a folder of the cache, which also keeps two builds on this machine apart. Against one on another
    machine there is an object `lock`; a build that was killed there leaves it behind, and a person removes it.

    Attributes:
        out: the result's URL.
        target: where shards are written: the result.
    """

    def __init__(self, out: RemotePath) -> None:
        work = cache_folder() / "builds" / hashlib.sha256(str(out).encode()).hexdigest()[:24]
        super().__init__(work, busy=f"{out}: another build is writing it", keep=False)
        self.out = self.target = out

    def __enter__(self) -> RemoteStaging:
        super().__enter__()
        try:
            self._lock_in_store()
        except BaseException:
            super().__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(CurateError, OSError):  # a store that is gone; the next build knows its own lock
            (self.out / LOCK).unlink(missing_ok=True)
        self.keep = False  # the shards are in the store
        super().__exit__()

    def begin(self, digest: str, *, replaces: bool = True) -> None:
        """Clear what another plan left below the URL, and mark it as this plan's.

        Args:
            replaces: whether what stands in `out` goes: its `dataset.json` first, so that it is no dataset any more.
        """
        same = _is_of(self.out, digest)
        if replaces:
            (self.out / INFO).unlink(missing_ok=True)
        if not same:
            self._clear(f"{SHARDS}/", f"{PARTS}/")
            write_atomic(self.out / PLAN, json.dumps(digest).encode())

    def publish(self) -> None:
        """Put what was made here beside the shards, `dataset.json` last."""
        for name in (MANIFEST, CARD, BUILD, INFO):
            if (self.path / name).exists():
                (self.out / name).write_bytes((self.path / name).read_bytes())
        self.tidy()

    def tidy(self) -> None:
        """Clear what a build leaves that is killed when its dataset is whole already."""
        self._clear(PLAN, f"{PARTS}/")

    def _clear(self, *beginnings: str) -> None:
        for name in self.out.sizes():
            if name.startswith(beginnings):
                (self.out / name).unlink(missing_ok=True)

    def _lock_in_store(self) -> None:
        lock = RemotePath(f"{self.out}/{LOCK}")
        owner = f"{socket.gethostname()} ({cache_folder()})"
        try:
            lock.write_bytes(owner.encode(), create=True)
        except FileExistsError:
            holder = lock.read_text()
            if holder != owner:  # ours was left by a build that was killed, for the lock here is held
                raise RecipeError(
                    f"{self.out}: a build on {holder} is writing it",
                    hint=f"wait for it; if it was killed, remove {lock}",
                ) from None


def _is_of(folder: AnyPath, digest: str) -> bool:
    """Whether a folder was left behind by this plan."""
    try:
        return json.loads((folder / PLAN).read_text()) == digest
    except (OSError, ValueError):
        return False


def staged(out: AnyPath, homes: Iterable[str] | None = None) -> Staging | RemoteStaging:
    """Return where a build of this result works.

    Args:
        homes: where the recipe's source lies; None for a set that is made anew in its own place.

    Raises:
        RecipeError: `out` is a place that is only read, holds something else , or holds the source.
    """
    if homes is not None:
        _refuse_foreign(out)
        for home in homes:
            _refuse_source(out, home)
    if not isinstance(out, RemotePath):
        return Staging(out)
    if is_web(str(out)):
        raise RecipeError(
            f"{out}: a web server is read, and not written to", hint="give --out a folder or s3://…"
        )
    return RemoteStaging(out)


@contextmanager
def disk_errors(out: AnyPath) -> Iterator[None]:
    """Turn a full disk, and DuckDB's word for it, into an error that a person can act on.

    Raises:
        DataError: the disk of `out` is full, or fails otherwise.
    """
    try:
        yield
    except CurateError:
        raise
    except (OSError, duckdb.Error) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "space" in str(error).lower():
            raise DataError(
                f"{out}: the disk is full; nothing was published", hint="make room, then run the same command"
            ) from error
        if not isinstance(error, OSError | duckdb.IOException | duckdb.OutOfMemoryException):
            raise
        raise DataError(f"{out}: {error}", hint="nothing was published") from error


def _refuse_foreign(out: AnyPath) -> None:
    """Refuse to write over what is not a dataset of ours, or holds more than one.

    Raises:
        RecipeError: the folder is somebody else's, or `out` is no folder.
    """
    if isinstance(out, RemotePath):
        names = {name.partition("/")[0] for name in out.sizes()} - {PLAN, PARTS, LOCK}
        unfinished = (out / PLAN).exists() if names and INFO not in names else False
    else:
        if not out.exists():
            return
        if not out.is_dir():
            raise RecipeError(f"{out}: is a file", hint="give --out a folder")
        names, unfinished = {entry.name for entry in out.iterdir()}, False
    if names and INFO not in names and not unfinished:
        raise RecipeError(
            f"{out}: holds {len(names)} things and is no dataset (such as {min(names)!r}); nothing was touched",
            hint="give --out a new folder",
        )
    foreign = {name for name in names - OURS if not is_unfinished(name)}
    if foreign:
        raise RecipeError(
            f"{out}: holds {min(foreign)!r}, which is not part of a dataset; nothing was touched",
            hint="move it elsewhere, or give --out a new folder",
        )


def _refuse_source(out: AnyPath, home: str) -> None:
    """Refuse to write over what the recipe reads: the result would stand on bytes that are gone.

    Raises:
        RecipeError: `home`, where the source lies, is `out` or inside it.
    """
    if isinstance(out, RemotePath):
        inside = f"{home}/".startswith(f"{out}/")
    else:
        inside = not is_remote(home) and Path(home).resolve().is_relative_to(out.resolve())
    if inside:
        raise RecipeError(f"{out}: the recipe would replace its own source", hint="choose another --out")
