"""Where a build works until it is done: a folder beside the result, locked, then renamed into its place."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from curate.datasets.dataset import BUILD, CARD, INFO, MANIFEST, PARTS, SHARDS
from curate.errors import CurateError, RecipeError
from curate.io.files import cache_folder, clear_unfinished, is_unfinished, sync_folder, write_atomic
from curate.io.paths import AnyPath, RemotePath
from curate.io.stores import StoreError, is_remote, is_web

OURS = {INFO, MANIFEST, BUILD, CARD, SHARDS, "gallery.html", ".nv-meta", "croissant.json", "wids.json"}

WITHIN = (SHARDS, ".nv-meta")  # folders of a dataset that sidecars are written into, besides its own

PLAN = "plan.json"  # names the plan that an unfinished build belongs to
LOCK = "lock"
GONE_ON_WITH = {LOCK, PLAN, SHARDS, PARTS}  # of what a killed build left; the rest is made anew


class Staging:
    """The working folder `.NAME.building` of a result. A context; at its end the folder is gone, or kept to go on.

    A second build of the same result is refused while this one holds the lock. What another plan left behind
    is cleared; what the same plan left (it was killed) is gone on with.

    Attributes:
        path: where the shards go.
        work: where the manifest is made, always on this machine; here the same.

    Args:
        out: the result's folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = self.work = out.parent / f".{out.name}.building"
        self.keep = False  # whether to leave the folder for the same command to go on

    def __enter__(self) -> Staging:
        if Path.cwd().is_relative_to(self.out.resolve()):
            raise RecipeError(
                f"{self.out}: is the current folder, and would be replaced",
                hint="run this from another folder",
            )
        if self.path.is_symlink():  # what was unpacked beside a dataset may lead to any folder, to be cleared
            raise RecipeError(f"{self.path}: is a link, and builds work there", hint="remove it")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for entry in self.path.iterdir():  # nor is anything written through one
                if entry.is_symlink():
                    entry.unlink()
            self._lock = locked(self.path / LOCK, self.out)
        except OSError as error:
            raise RecipeError(
                f"{self.path}: cannot be written ({error.strerror})", hint="choose another --out"
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        failed = isinstance(error, CurateError | OSError) and not isinstance(error, StoreError)
        if failed or not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def begin(self, digest: str, *, replaces: bool = True) -> None:
        """Clear what this plan cannot go on with, and mark the folder as this plan's.

        That is all that another plan left; of what this one left, all but the finished shards.

        Args:
            replaces: whether what stands in `out` goes; nothing of it does here before `publish`.
        """
        mark = self.path / PLAN
        try:
            same = json.loads(mark.read_text()) == digest
        except (OSError, ValueError):
            same = False
        self._clear(GONE_ON_WITH if same else {LOCK})
        if not same:
            write_atomic(mark, json.dumps(digest).encode())

    def _clear(self, stays: set[str]) -> None:
        shards = self.path / SHARDS
        halves = [entry for entry in shards.iterdir() if is_unfinished(entry.name)] if shards.is_dir() else []
        for entry in [*halves, *(entry for entry in self.path.iterdir() if entry.name not in stays)]:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def publish(self) -> None:
        """Put the finished folder in the result's place."""
        gone = self.path.with_name(f"{self.path.name}-gone")
        for name in (PLAN, PARTS, "work", LOCK):
            entry = self.path / name
            if entry.is_dir():  # renamed first: a worker that was lost may still be writing into it
                shutil.rmtree(gone, ignore_errors=True)
                os.rename(entry, gone)
                shutil.rmtree(gone, ignore_errors=True)
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

    def tidy(self) -> None:
        """Clear what killed exports left in the result; what is beside it is the business of `__exit__`."""
        clear_unfinished(*(self.out / name for name in ("", *WITHIN)))


class RemoteStaging:
    """What `Staging` does, for a result in a store, where nothing can be renamed. A context.

    Shards are written to where they stay; `dataset.json`, written last, makes a dataset of them. What is small is
    made in a folder of the cache, which also keeps two builds on this machine apart. Against one on another
    machine there is an object `lock`; a build that was killed there leaves it behind, and a person removes it.

    Args:
        out: the result's URL.
    """

    def __init__(self, out: RemotePath) -> None:
        self.out = self.path = out
        self.work = cache_folder() / "builds" / hashlib.sha256(str(out).encode()).hexdigest()[:24]
        self.keep = False

    def __enter__(self) -> RemoteStaging:
        self.work.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.work / "lock", self.out)
        try:
            self._lock_there()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(
            CurateError, OSError
        ):  # a store that is gone; the next build knows its own lock
            (self.out / LOCK).unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self._lock.close()

    def begin(self, digest: str, *, replaces: bool = True) -> None:
        """Clear what another plan left below the URL, and mark it as this plan's.

        Args:
            replaces: whether what stands in `out` goes: its `dataset.json` first, so that it is no dataset any more.
        """
        try:
            same = json.loads((self.out / PLAN).read_text()) == digest
        except (OSError, ValueError):
            same = False
        if replaces:
            (self.out / INFO).unlink(missing_ok=True)
        if not same:
            self._clear(lambda name: name.startswith((f"{SHARDS}/", f"{PARTS}/")))
            write_atomic(self.out / PLAN, json.dumps(digest).encode())

    def publish(self) -> None:
        """Put what was made here beside the shards, `dataset.json` last."""
        for name in (MANIFEST, CARD, BUILD, INFO):
            if (self.work / name).exists():
                (self.out / name).write_bytes((self.work / name).read_bytes())
        self.tidy()

    def tidy(self) -> None:
        """Clear what a build leaves that is killed when its dataset is whole already."""
        self._clear(lambda name: name == PLAN or name.startswith(f"{PARTS}/"))

    def _clear(self, goes: Callable[[str], bool]) -> None:
        for name in filter(goes, self.out.sizes()):
            (self.out / name).unlink(missing_ok=True)

    def _lock_there(self) -> None:
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


def staged(out: AnyPath) -> Staging | RemoteStaging:
    """Return where a build of this result works.

    Raises:
        RecipeError: `out` is a place that is only read.
    """
    if not isinstance(out, RemotePath):
        return Staging(out)
    if is_web(str(out)):
        raise RecipeError(
            f"{out}: a web server is read, and not written to", hint="give --out a folder or s3://…"
        )
    return RemoteStaging(out)


def locked(file: Path, out: AnyPath, who: str = "build") -> IO[str]:
    """Lock a file, which stands for a result that something works on.

    Raises:
        RecipeError: another does already.
    """
    lock = open(file, "w")  # noqa: SIM115 - held as long as the build
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise RecipeError(
            f"{out}: another {who} is writing it", hint="wait for it, or choose another --out"
        ) from None
    return lock


def restore(out: AnyPath) -> None:
    """Put back the set that a kill between the two renames of `publish` left aside."""
    if isinstance(out, RemotePath):
        return
    if not out.exists() and _old(out).exists():
        os.rename(_old(out), out)


def _old(out: Path) -> Path:
    return out.parent / f".{out.name}.old"


def refuse_foreign(out: AnyPath) -> None:
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


def refuse_source(out: AnyPath, home: str) -> None:
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
