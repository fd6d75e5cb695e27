"""Byte ranges: a file, a member of a tar and a remote object are read the same way."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

from curate.errors import DataError

OPEN_FILES = 64  # tars kept open by one reader


def is_remote(path: str) -> bool:
    """Whether a path is a URL, read through fsspec."""
    return "://" in path


class Reader:
    """Read the bytes of rows under one root. Safe for threads.

    A row with offset 0 is a whole file, and is refused when its length is no longer `size`. Anything
    else is a range of a tar (members never start at 0); each thread keeps its last tars open.

    Args:
        root: the folder or URL that the rows' `file` is relative to.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._local = threading.local()  # each thread opens its own, so that none closes another's

    def read(self, file: str, offset: int | None, size: int | None) -> bytes:
        """Return the bytes of one row.

        Raises:
            DataError: the file is gone, shorter than the range, or not the length it was indexed with,
                or its name leads out of the root.
        """
        if is_remote(file) or is_remote(self.root):
            return self._read_remote(file, offset or 0, size)
        path = os.path.join(self.root, self._inside(file))
        try:
            data = self._read_whole(path, size) if not offset else self._read_range(path, offset, size or 0)
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror or error})",
                hint="the pool moved or lost a file; build again from where it is now",
            ) from error
        if size is not None and len(data) != size:
            raise DataError(
                f"{path}: {len(data)} bytes where {size} were indexed",
                hint="the file changed after it was indexed; build again",
            )
        return data

    def read_into(self, file: str, offset: int | None, view: memoryview) -> None:
        """Read the bytes of one row to where they are wanted; as many as `view` holds.

        Raises:
            DataError: as `read`.
        """
        if is_remote(file) or is_remote(self.root):
            view[:] = self.read(file, offset, len(view))
            return
        path = os.path.join(self.root, self._inside(file))
        try:
            if offset:
                count = os.preadv(self._tar(path), [view], offset)
            else:
                handle = os.open(path, os.O_RDONLY)
                try:  # one byte more than indexed tells a file that has grown
                    count = os.readv(handle, [view, bytearray(1)])
                finally:
                    os.close(handle)
        except OSError:
            count = -1
        if count != len(
            view
        ):  # seldom: by the way that takes part of a read for what it is, or says what is wrong
            view[:] = self.read(file, offset, len(view))

    def __getstate__(self) -> dict[str, str]:  # a reader travels to a worker without its open files
        return {"root": self.root}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    @staticmethod
    @lru_cache(maxsize=4096)
    def _inside(file: str) -> str:
        if file.startswith("/") or ".." in file.split("/"):
            raise DataError(
                f"file {file!r} leads out of the dataset's root", hint="do not trust this manifest"
            )
        return file

    @staticmethod
    def _read_whole(path: str, size: int | None) -> bytes:
        handle = os.open(path, os.O_RDONLY)
        try:
            if size is None:
                size = os.fstat(handle).st_size
            data = os.read(handle, size + 1)  # one byte more than indexed tells a file that has grown
            while 0 < len(data) < size:
                more = os.read(handle, size + 1 - len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(handle)

    def _read_range(self, path: str, offset: int, size: int) -> bytes:
        return os.pread(self._tar(path), size, offset)

    def _tar(self, path: str) -> int:
        """Return the descriptor of a tar that is kept open."""
        tars = self._local.__dict__.setdefault("tars", OrderedDict())
        tar = tars.get(path)
        if tar is None:
            tar = tars[path] = open(path, "rb", buffering=0)  # noqa: SIM115 - closed when it falls out of the cache
            if len(tars) > OPEN_FILES:
                tars.popitem(last=False)[1].close()
        else:
            tars.move_to_end(path)
        return tar.fileno()

    def _read_remote(self, file: str, offset: int, size: int | None) -> bytes:
        import fsspec

        url = file if is_remote(file) else f"{self.root.rstrip('/')}/{self._inside(file)}"
        try:
            filesystem, path = fsspec.core.url_to_fs(url)
            return filesystem.cat_file(path, start=offset, end=None if size is None else offset + size)
        except (OSError, ImportError, ValueError) as error:
            raise DataError(f"{url}: cannot be read ({error})", hint="is the store reachable?") from error
