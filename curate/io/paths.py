"""Paths of folders and files, on this machine or in an object store.

`as_path` returns a `Path` or a `RemotePath`. Both have the few methods that datasets need, so that most code does not
ask which it has.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

from curate.errors import RecipeError
from curate.io.stores import filesystem, is_remote, is_web, refuse_absent_bucket, retry

MAX_PATHS = 100_000  # that braces in a path may stand for

T = TypeVar("T")


def as_path(path: str | Path | RemotePath) -> AnyPath:
    """Return the path of a text: a `RemotePath` for a URL."""
    if isinstance(path, Path | RemotePath):
        return path
    return RemotePath(path) if is_remote(path) else Path(path)


def find_files(path: str, endings: tuple[str, ...], what: str, *, hidden: tuple[str, ...] = ()) -> list[str]:
    """Return the files at a path or URL: a file, a folder of files, or a pattern.

    Args:
        path: `/pool/{000..019}.tar` and `*.tar` are patterns, unless a file has that name.
        endings: the endings of the files that a folder is searched for.
        what: the kind of file, for messages.
        hidden: prefixes of the files and folders that are skipped in a folder.

    Raises:
        RecipeError: nothing is there.
        DataError: a store does not answer, or has no such bucket.
    """
    files: list[str] = []
    try:
        literal = any(c in path for c in "{*?[") and as_path(path).exists()
    except OSError:  # longer than any file name
        literal = False
    for pattern in [path] if literal else _expanded(path):
        find = partial(_find, pattern, endings, what, hidden)
        files += retry(pattern, find) if is_remote(pattern) else find()
    return files


def _expanded(path: str) -> list[str]:
    """Return the paths that a pattern with braces expands to.

    Raises:
        RecipeError: there are too many, or a brace has no partner.
    """
    import braceexpand

    shown = path if len(path) <= 200 else f"{path[:60]}…"
    ranges = re.findall(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}", path)
    many = any(len(a + b) > 20 or abs(int(b) - int(a)) >= MAX_PATHS for a, b in ranges)
    try:
        paths = [] if many else list(itertools.islice(braceexpand.braceexpand(path), MAX_PATHS + 1))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{shown}: braces that stand for no paths ({error})") from None
    if many or len(paths) > MAX_PATHS:
        raise RecipeError(
            f"{shown}: braces that stand for more than {MAX_PATHS:,} paths",
            hint="name the folder, or a pattern with `*`",
        )
    return paths


def _find(path: str, endings: tuple[str, ...], what: str, hidden: tuple[str, ...]) -> list[str]:
    """Return the files at one path or pattern without braces."""
    files, inner = filesystem(path) if is_remote(path) else _local(path)
    web = is_web(path)  # there, `isdir` downloads the whole page or file
    if (inner.endswith("/") or not web) and files.isdir(inner):
        matches = [m for m in files.find(inner) if m.lower().endswith(endings)]
        if hidden:
            matches = [m for m in matches if not any(p.startswith(hidden) for p in _below(m, inner))]
    else:
        pattern = any(c in inner for c in "*?[") and not files.exists(inner)
        matches = files.glob(inner) if pattern else [inner]
        if not matches:
            refuse_absent_bucket(path)
        if missing := [m for m in matches if not files.exists(m)]:
            refuse_absent_bucket(path)
            if web:  # fsspec says so of a server that does not answer as well: read a byte, which tells
                with contextlib.suppress(FileNotFoundError):
                    files.cat_file(missing[0], start=0, end=1)
            raise RecipeError(
                f"{path}: no such {what}", hint="`--set NAME=PATH` fills in a path of the recipe"
            )
    return [files.unstrip_protocol(m) if is_remote(path) else m for m in matches]


def _local(path: str) -> tuple[Any, str]:
    """Return the local file system and an absolute path; in a local path `reference::x` is a name, no protocol."""
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem(), os.path.abspath(os.path.expanduser(path))


def _below(path: str, folder: str) -> list[str]:
    """Return the parts of a path below a folder."""
    return path[len(folder.rstrip("/")) :].strip("/").split("/")


class RemotePath:
    """A URL with the methods of `pathlib.Path` that datasets need. Each retries, as `retry` says.

    Args:
        url: such as `s3://bucket/prefix`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __truediv__(self, below: str) -> AnyPath:
        absolute = below.startswith("/") or is_remote(below)
        return as_path(below) if absolute else self if below == "." else RemotePath(f"{self.url}/{below}")

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    def resolve(self) -> RemotePath:
        """Return the path itself: a URL is always absolute."""
        return self

    def read_bytes(self) -> bytes:
        """Return the whole content."""
        return self._do(lambda fs, path: fs.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the whole content as text."""
        return self.read_bytes().decode(encoding)

    def state(self) -> str:
        """Return a value of the store that changes with the object, such as its ETag."""
        return self._do(lambda fs, path: str(fs.ukey(path)))

    def fetch(self, target: Path) -> None:
        """Copy the whole content into a file of this machine."""
        self._do(lambda fs, path: fs.get_file(path, str(target)))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open for reading."""
        assert mode == "rb", mode
        return self._do(lambda fs, path: fs.open(path, "rb"))

    def write_bytes(self, data: bytes, *, create: bool = False) -> int:
        """Write the whole content; readers see all of it or none.

        Args:
            create: write only if there is no such object yet. If two writers try at once, S3 lets one of them
                (`If-None-Match`); a store whose fsspec driver ignores `mode="create"` may let both.

        Raises:
            FileExistsError: the object exists, with `create`.
        """
        self._do(lambda fs, path: fs.pipe_file(path, data, mode="create" if create else "overwrite"))
        return len(data)

    def exists(self) -> bool:
        """Whether there is an object or anything below the prefix."""
        return self._do(lambda fs, path: fs.exists(path))

    def is_file(self) -> bool:
        """Whether there is an object."""
        return self._do(lambda fs, path: fs.isfile(path))

    def is_dir(self) -> bool:
        """Whether there is anything below the prefix."""
        return self._do(lambda fs, path: fs.isdir(path))

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object below the prefix, by its path from there."""
        objects = self._do(lambda fs, path: fs.find(path, detail=True))
        top = len(self._path()) + 1
        return {name[top:]: info["size"] for name, info in objects.items() if len(name) > top}

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        try:
            self._do(lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _path(self) -> str:
        return filesystem(self.url)[1].rstrip("/")

    def _do(self, work: Callable[[Any, str], T]) -> T:
        return retry(self.url, lambda: work(*filesystem(self.url)))


AnyPath: TypeAlias = Path | RemotePath


def sizes(folder: AnyPath) -> dict[str, int]:
    """Return the size in bytes of every file below a folder, by relative path; empty if there is no folder."""
    if isinstance(folder, RemotePath):
        return folder.sizes()
    files = (f for f in folder.rglob("*") if f.is_file())
    return {f.relative_to(folder).as_posix(): f.stat().st_size for f in files}


@contextlib.contextmanager
def local_copy(file: AnyPath) -> Iterator[Path]:
    """Yield a local file with the content: the file itself, or a temporary copy of a remote one."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        file.fetch(copy)
        yield copy
