"""Byte ranges: one reader for files, members of tars and remote objects."""

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

FLAGS = os.O_RDONLY | os.O_NONBLOCK  # a manifest may name a pipe, which must not block
OPEN_FILES = 256  # tars kept open by one reader
GAP_BYTES = 64 << 10  # between two ranges of an object that are still fetched as one
HEAD_BYTES = 512  # of a tar, before each member
SPAN_BYTES = 8 << 20  # of ranges fetched as one

Range = tuple[str, int, int | None]  # URL, first byte, one past the last (None: the end)


class ByteRangeReader:
    """Read the bytes of rows under one root; safe for threads; a context manager, which closes its tars.

    A row with offset 0 is a whole file, which is refused if its length is no longer `size`. Any other row is a range
    of a tar, since no member starts at 0. The last tars stay open.

    Args:
        root: the folder or URL that `file` of the rows is relative to.
    """

    def __init__(self, root: str | Path | RemotePath) -> None:
        self.root = str(root)
        self._tar = lru_cache(OPEN_FILES)(_Tar)

    def __enter__(self) -> ByteRangeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all tars; the next read opens them again."""
        self._tar.cache_clear()

    def read(self, file: str, offset: int | None, size: int | None) -> bytes:
        """Return the bytes of one row.

        Raises:
            DataError: the file is missing, shorter than the range or longer than indexed, or its name leads out of
                the root.
        """
        if self._is_remote(file):
            [data] = self.read_many([file], [offset], [size])
            if isinstance(data, DataError):
                raise data
            return data
        return self._read_local(file, offset, size, whole=not offset)

    def _read_local(self, file: str, start: int | None, size: int | None, *, whole: bool) -> bytes:
        path = self._path(file)
        try:
            data = self._read_whole(path, size) if whole else self._tar(path).read(start or 0, size or 0)
        except OSError as error:
            raise _unreadable(path, error) from error
        return _checked(path, data, size)

    def read_many(
        self, files: Sequence[str], offsets: Sequence[int | None], sizes: Sequence[int | None]
    ) -> list[bytes | DataError]:
        """Return the bytes of many rows in order, or the error of each row that cannot be read.

        Ranges of objects in a store are fetched concurrently, and close ranges as one. If a store fails, the missing
        ranges are requested again, three times in all.
        """
        return self._read_ranges(files, offsets, sizes, [not offset for offset in offsets])

    def _read_ranges(
        self,
        files: Sequence[str],
        starts: Sequence[int | None],
        sizes: Sequence[int | None],
        wholes: Sequence[bool],
    ) -> list[bytes | DataError]:
        """Read as `read_many`, also ranges that begin at byte 0 of a larger file, as a tar's first header does."""
        results: list[bytes | DataError] = [b""] * len(files)
        remote: dict[int, Range] = {}
        for i, (file, start, size, whole) in enumerate(zip(files, starts, sizes, wholes, strict=True)):
            try:
                if not self._is_remote(file):
                    results[i] = self._read_local(file, start, size, whole=whole)
                else:  # one byte more than indexed of a whole file, to notice one that has grown
                    end = None if size is None else (start or 0) + size + whole
                    remote[i] = (self._path(file), start or 0, end)
            except DataError as error:
                results[i] = error
        for i, data in _fetch(remote).items():
            try:
                results[i] = data if isinstance(data, DataError) else _checked(remote[i][0], data, sizes[i])
            except DataError as error:
                results[i] = error
        return results

    def read_all_into(
        self, files: Sequence[str], offsets: Sequence[int | None], views: Sequence[memoryview]
    ) -> None:
        """Read the bytes of many rows into buffers, as many as each buffer holds.

        A member of a tar is refused unless the header before it still has its size.

        Raises:
            DataError: see `read`.
        """
        if any(map(self._is_remote, files)):
            heads = [HEAD_BYTES if offset else 0 for offset in offsets]
            starts = [(offset or 0) - head for offset, head in zip(offsets, heads, strict=True)]
            sizes = [len(view) + head for view, head in zip(views, heads, strict=True)]
            for i, data in enumerate(self._read_ranges(files, starts, sizes, [not o for o in offsets])):
                if isinstance(data, DataError):
                    raise data
                if heads[i]:
                    _check_member(self._path(files[i]), data, len(views[i]))
                views[i][:] = data[heads[i] :]
            return
        head = bytearray(HEAD_BYTES)
        for file, offset, view in zip(files, offsets, views, strict=True):
            self._read_into(file, offset, view, head)

    def _read_into(self, file: str, offset: int | None, view: memoryview, head: bytearray) -> None:
        path, before = self._path(file), HEAD_BYTES if offset else 0
        count = -1
        try:
            if offset:
                tar = self._tar(path)  # a reference, for the cache may drop the tar meanwhile
                count = os.preadv(tar.handle, [head, view], offset - before)
            else:
                handle = os.open(path, FLAGS)
                try:  # one byte more than indexed, to notice a file that has grown
                    count = os.readv(handle, [view, head[:1]])
                finally:
                    os.close(handle)
        except OSError:
            pass
        if count != before + len(view):  # seldom: read again in the way that raises the right error
            view[:] = self.read(file, offset, len(view))
            head[:before] = self.read(file, (offset or 0) - before, before) if before else b""
        if offset:
            _check_member(path, head, len(view))

    def __getstate__(self) -> dict[str, str]:  # a worker gets the reader without its open files
        return {"root": self.root}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    def _is_remote(self, file: str) -> bool:
        return "://" in self.root or "://" in file

    def _path(self, file: str) -> str:
        """Return the path or URL of a row's file."""
        if "://" in file:
            return file
        return f"{self.root}/{_inside(file)}"

    @staticmethod
    def _read_whole(path: str, size: int | None) -> bytes:
        handle = os.open(path, FLAGS)
        try:
            length = os.fstat(handle).st_size
            size = length if size is None else min(size, length)  # a manifest may have any size
            data = os.read(handle, size + 1)  # one byte more than indexed, to notice a file that has grown
            while 0 < len(data) < size:
                more = os.read(handle, size + 1 - len(data))
                if not more:
                    break
                data += more
            return data
        finally:
            os.close(handle)


class _Tar:
    """An open tar, closed with its last reference, so that no thread loses it while it reads."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, FLAGS)
        self.size = os.fstat(self.handle).st_size  # bytes; a manifest may have any size

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
    """Refuse a header of a tar that is not that of a member of this size."""
    try:
        header_size = number(bytes(head[124:136]), 0)
    except BadTar:
        header_size = -1
    if header_size != size:
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
    """Fetch ranges of objects concurrently, close ones as one; retry those that fail."""
    results: dict[int, bytes | DataError] = {}
    spans = _spans(wanted)
    for attempt in range(1, ATTEMPTS + 1):
        failed: list[tuple[Range, list[int]]] = []
        for (span, members), data in zip(spans, _cat([span for span, _ in spans]), strict=True):
            url, first, _ = span
            if isinstance(data, bytes):
                for i in members:
                    _, start, end = wanted[i]
                    results[i] = data[start - first : None if end is None else end - first]
            elif isinstance(data, DataError):
                results |= dict.fromkeys(members, data)
            elif _is_final(data):
                results |= {i: _unreadable(url, data) for i in members}
            elif attempt == ATTEMPTS or lacks_credentials(data):
                results |= {i: store_failure(url, data) for i in members}
            else:
                failed.append((span, members))
        if not failed:
            break
        spans = failed
        time.sleep(WAIT_S * 2 ** (attempt - 1))
    return results


def _is_final(error: BaseException) -> bool:
    """Tell whether a retry cannot help: the object is missing, forbidden, or shorter than the range."""
    known = isinstance(error, FileNotFoundError | PermissionError)
    return known or (isinstance(error, OSError) and error.errno == errno.EINVAL)


def _spans(wanted: dict[int, Range]) -> list[tuple[Range, list[int]]]:
    """Join close ranges of one object; return each span with the positions of its rows."""
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
    """Fetch ranges of one store concurrently; return the exception of each that fails."""
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
