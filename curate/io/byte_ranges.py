"""Byte ranges: a file, a member of a tar and a remote object are read the same way."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from curate.errors import CurateError, DataError
from curate.io.paths import RemotePath
from curate.io.stores import ATTEMPTS, WAIT_S, filesystem, lacks_credentials, store_failure
from curate.io.tars.headers import BadTar, number

FLAGS = os.O_RDONLY | os.O_NONBLOCK  # a manifest may point at a pipe, which is not waited for
OPEN_FILES = 256  # tars kept open by one reader
GAP_BYTES = 64 << 10  # between two ranges of an object that are still fetched as one
HEAD_BYTES = 512  # of a tar, before each member
SPAN_BYTES = 8 << 20  # of ranges fetched as one

Range = tuple[str, int, int | None]  # URL, first byte, one past the last (None: the end)


class ByteRangeReader:
    """Read the bytes of rows under one root. Safe for threads. A context; its end closes what it holds open.

    A row with offset 0 is a whole file, and is refused when its length is no longer `size`. Anything
    else is a range of a tar (members never start at 0); the last tars are kept open.

    Args:
        root: the folder or URL that the rows' `file` is relative to.
    """

    def __init__(self, root: str | Path | RemotePath) -> None:
        self.root = str(root)
        self._tar = lru_cache(OPEN_FILES)(_Tar)

    def __enter__(self) -> ByteRangeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the tars that are kept open; the next read opens them again."""
        self._tar.cache_clear()

    def read(self, file: str, offset: int | None, size: int | None) -> bytes:
        """Return the bytes of one row.

        Raises:
            DataError: the file is gone, shorter than the range, or not the length it was indexed with,
                or its name leads out of the root.
        """
        if self._is_remote(file):
            [found] = self.read_many([file], [offset], [size])
            if isinstance(found, DataError):
                raise found
            return found
        return self._read_here(file, offset, size, whole=not offset)

    def _read_here(self, file: str, start: int | None, size: int | None, *, whole: bool) -> bytes:
        path = self._place(file)
        try:
            data = self._read_whole(path, size) if whole else self._tar(path).read(start or 0, size or 0)
        except OSError as error:
            raise _unreadable(path, error) from error
        return _checked(path, data, size)

    def read_many(
        self, files: Sequence[str], offsets: Sequence[int | None], sizes: Sequence[int | None]
    ) -> list[bytes | DataError]:
        """Return the bytes of many rows in order; for each that cannot be read, the error that says why.

        Ranges of objects in a store are fetched at once, and those that lie close together as one. A store that
        fails is asked three times in all, each time only for what is missing.
        """
        return self._read_ranges(files, offsets, sizes, [not offset for offset in offsets])

    def _read_ranges(
        self,
        files: Sequence[str],
        starts: Sequence[int | None],
        sizes: Sequence[int | None],
        wholes: Sequence[bool],
    ) -> list[bytes | DataError]:
        """Do what `read_many` does; a range that is no whole file may begin at byte 0, as a tar's first header."""
        found: list[bytes | DataError] = [b""] * len(files)
        remote: dict[int, Range] = {}
        for i, (file, start, size, whole) in enumerate(zip(files, starts, sizes, wholes, strict=True)):
            try:
                if not self._is_remote(file):
                    found[i] = self._read_here(file, start, size, whole=whole)
                else:  # of a whole file one byte more than indexed, which tells one that has grown
                    end = None if size is None else (start or 0) + size + whole
                    remote[i] = (self._place(file), start or 0, end)
            except DataError as error:
                found[i] = error
        for i, data in _fetch(remote).items():
            try:
                found[i] = data if isinstance(data, DataError) else _checked(remote[i][0], data, sizes[i])
            except DataError as error:
                found[i] = error
        return found

    def read_all_into(
        self, files: Sequence[str], offsets: Sequence[int | None], views: Sequence[memoryview]
    ) -> None:
        """Read the bytes of many rows to where they are wanted; as many as each view holds.

        A member of a tar is refused unless the header before it still says its size.

        Raises:
            DataError: as `read`.
        """
        if any(map(self._is_remote, files)):
            heads = [HEAD_BYTES if offset else 0 for offset in offsets]
            starts = [(offset or 0) - head for offset, head in zip(offsets, heads, strict=True)]
            sizes = [len(view) + head for view, head in zip(views, heads, strict=True)]
            for i, data in enumerate(self._read_ranges(files, starts, sizes, [not o for o in offsets])):
                if isinstance(data, DataError):
                    raise data
                if heads[i]:
                    _check_member(self._place(files[i]), data, len(views[i]))
                views[i][:] = data[heads[i] :]
            return
        head = bytearray(HEAD_BYTES)
        for file, offset, view in zip(files, offsets, views, strict=True):
            self._read_into(file, offset, view, head)

    def _read_into(self, file: str, offset: int | None, view: memoryview, head: bytearray) -> None:
        path, before = self._place(file), HEAD_BYTES if offset else 0
        count = -1
        try:
            if offset:
                tar = self._tar(path)  # held as long as it is read from: the cache may let it go meanwhile
                count = os.preadv(tar.handle, [head, view], offset - before)
            else:
                handle = os.open(path, FLAGS)
                try:  # one byte more than indexed tells a file that has grown
                    count = os.readv(handle, [view, head[:1]])
                finally:
                    os.close(handle)
        except OSError:
            pass
        if count != before + len(view):  # seldom: the way that says what is wrong
            view[:] = self.read(file, offset, len(view))
            head[:before] = self.read(file, (offset or 0) - before, before) if before else b""
        if offset:
            _check_member(path, head, len(view))

    def __getstate__(self) -> dict[str, str]:  # a reader travels to a worker without its open files
        return {"root": self.root}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    def _is_remote(self, file: str) -> bool:
        return "://" in self.root or "://" in file

    def _place(self, file: str) -> str:
        """Return the path or URL of a row's file."""
        if "://" in file:
            return file
        return f"{self.root}/{_inside(file)}"

    @staticmethod
    def _read_whole(path: str, size: int | None) -> bytes:
        handle = os.open(path, FLAGS)
        try:
            length = os.fstat(handle).st_size
            size = length if size is None else min(size, length)  # a manifest may claim any size
            data = os.read(handle, size + 1)  # one byte more than indexed tells a file that has grown
            while 0 < len(data) < size:
                more = os.read(handle, size + 1 - len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(handle)


class _Tar:
    """A tar kept open; closed when nobody holds it, so that no thread has it taken from under it."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, FLAGS)
        self.size = os.fstat(self.handle).st_size  # bytes; a manifest may claim any

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.handle, min(size, self.size), offset)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


@lru_cache(maxsize=4096)
def _inside(file: str) -> str:
    if file.startswith("/") or ".." in file.split("/"):
        raise DataError(f"file {file!r} leads out of the dataset's root", hint="do not trust this manifest")
    return file


def _check_member(path: str, head: bytes | bytearray, size: int) -> None:
    """Refuse bytes of a tar whose header is not that of a member of this size."""
    try:
        found = number(bytes(head[124:136]), 0)
    except BadTar:
        found = -1
    if found != size:
        raise DataError(
            f"{path}: where a member of {size} bytes was indexed, there is none",
            hint="the tar changed after it was indexed; build again",
        )


def _unreadable(path: str, error: BaseException) -> DataError:
    return DataError(
        f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})",
        hint="the pool moved or lost a file; build again from where it is now",
    )


def _checked(path: str, data: bytes, size: int | None) -> bytes:
    if size is not None and len(data) != size:
        raise DataError(
            f"{path}: {len(data)} bytes where {size} were indexed",
            hint="the file changed after it was indexed; build again",
        )
    return data


def _fetch(wanted: dict[int, Range]) -> dict[int, bytes | DataError]:
    """Fetch ranges of objects: close ones as one, all at once, what failed again."""
    found: dict[int, bytes | DataError] = {}
    spans = _spans(wanted)
    for attempt in range(1, ATTEMPTS + 1):
        failed: list[tuple[Range, list[int]]] = []
        for (span, members), data in zip(spans, _cat([span for span, _ in spans]), strict=True):
            url, first, _ = span
            if isinstance(data, bytes):
                for i in members:
                    _, start, end = wanted[i]
                    found[i] = data[start - first : None if end is None else end - first]
            elif isinstance(data, DataError):
                found |= dict.fromkeys(members, data)
            elif _is_final(data):
                found |= {i: _unreadable(url, data) for i in members}
            elif attempt == ATTEMPTS or lacks_credentials(data):
                found |= {i: store_failure(url, data) for i in members}
            else:
                failed.append((span, members))
        if not failed:
            break
        spans = failed
        time.sleep(WAIT_S * 2 ** (attempt - 1))
    return found


def _is_final(error: BaseException) -> bool:
    """Whether asking again will not help: the object is not there, not ours to read, or shorter than the range."""
    known = isinstance(error, FileNotFoundError | PermissionError)
    return known or (isinstance(error, OSError) and error.errno == errno.EINVAL)


def _spans(wanted: dict[int, Range]) -> list[tuple[Range, list[int]]]:
    """Join ranges of one object that lie close together; each with the rows that are in it."""
    spans: list[tuple[Range, list[int]]] = []
    for i, (url, start, end) in sorted(wanted.items(), key=lambda item: item[1][:2]):
        if spans and end is not None:
            (before, first, last), members = spans[-1]
            if before == url and last is not None and start <= last + GAP_BYTES and end - first <= SPAN_BYTES:
                members.append(i)
                spans[-1] = ((url, first, max(last, end)), members)
                continue
        spans.append(((url, start, end), [i]))
    return spans


def _cat(ranges: list[Range]) -> list[bytes | BaseException]:
    """Fetch ranges of one store at once; for what fails, the exception."""
    if not ranges:
        return []
    try:
        store, _ = filesystem(ranges[0][0])
        paths = [filesystem(url)[1] for url, _, _ in ranges]
        starts, ends = [start for _, start, _ in ranges], [end for _, _, end in ranges]
        return store.cat_ranges(paths, starts, ends, on_error="return")
    except CurateError:
        raise
    except Exception as error:  # each store's client has exceptions of its own
        return [error] * len(ranges)
