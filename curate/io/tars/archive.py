"""Writing of plain tars (USTAR): the same members give the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tarfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from curate.errors import DataError
from curate.io.paths import AnyPath, RemotePath
from curate.io.stores import PART_BYTES, filesystem

BLOCK = 512
NAME_BYTES = 100  # that a header holds; a longer name takes a prefix or a header of its own
MAX_MEMBER_BYTES = 8**11 - 1  # what eleven octal digits hold: 8 GiB less one

# A header up to the size: name, mode 0644, uid and gid 0. Then mtime 0, the checksum, type, magic, owner.
_OWNER = b"0000644\0" + b"0000000\0" * 2
_REST = b"00000000000\0"
_KIND = b"0" + bytes(100) + b"ustar\x0000" + bytes(64 + 16 + 155 + 12)  # no device numbers, as tarfile has it
_FIXED_SUM = sum(_OWNER) + sum(_REST) + 8 * 32 + sum(_KIND)  # the checksum counts itself as eight spaces


def header(name: str, size: int) -> bytes:
    """Return the header of a plain file: mode 0644, owner 0, time 0.

    A name over 100 bytes is split at a slash into prefix and name, or gets a GNU long-name header before.

    Raises:
        DataError: the size is 8 GiB or more.
    """
    if size > MAX_MEMBER_BYTES:
        raise DataError(f"{name}: {size:,} bytes do not fit into a tar member", hint="leave this sample out")
    raw = name.encode()
    if len(raw) > NAME_BYTES:
        return _long(name, size)
    digits = b"%011o\0" % size
    checksum = _FIXED_SUM + sum(raw) + sum(digits)
    return raw.ljust(100, b"\0") + _OWNER + digits + _REST + b"%06o\0 " % checksum + _KIND


def headers(names: Sequence[bytes] | np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the headers of many plain files, as `header` does, for names of at most 100 bytes.

    Returns:
        uint8 of shape (M, 512).
    """
    heads = np.empty((len(names), BLOCK), np.uint8)
    heads[:] = np.frombuffer(header("", 0), np.uint8)
    if not len(names):
        return heads
    raw = np.asarray(names, "S100").view(np.uint8).reshape(-1, NAME_BYTES)
    digits = ((sizes[:, None] >> np.arange(30, -1, -3)) & 7).astype(np.uint8) + ord(
        "0"
    )  # eleven octal digits
    sums = _FIXED_SUM + raw.sum(axis=1, dtype=np.int64) + digits.sum(axis=1, dtype=np.int64)
    heads[:, :NAME_BYTES] = raw
    heads[:, 124:135] = digits
    heads[:, 148:154] = ((sums[:, None] >> np.arange(15, -1, -3)) & 7) + ord("0")
    return heads


def _long(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return member.tobuf(tarfile.GNU_FORMAT)


class TarWriter:
    """Write a tar that gets its name at `close`, once it is complete and durable.

    A local tar is written to a temporary file, synced and renamed; in a store it is a multipart upload. A thread writes
    and hashes one block while the caller prepares the next.

    Args:
        path: of the tar.
        scratch: a folder on the same disk for the temporary file; the folder of `path` if None.
    """

    def __init__(self, path: AnyPath, scratch: AnyPath | None = None) -> None:
        self.bytes = 0
        self._sha = hashlib.sha256()
        self._stream: _Upload | _File
        if isinstance(path, RemotePath):
            self._stream = _Upload(path)
        else:
            self._stream = _File(path, Path(str(scratch or path.parent)))
        self._behind = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def put(self, block: memoryview | bytes) -> None:
        """Write whole blocks of members; the caller must not change their memory any more."""
        self.bytes += len(block)
        last, self._last = self._last, self._behind.submit(self._put, block)
        if last:
            last.result()

    def close(self) -> str:
        """Complete the tar; return its sha256 in hex."""
        self.put(bytes(-(self.bytes + 2 * BLOCK) % tarfile.RECORDSIZE + 2 * BLOCK))
        self._behind.shutdown()
        assert self._last is not None
        self._last.result()
        self._stream.finish()
        return self._sha.hexdigest()

    def abort(self) -> None:
        """Discard the tar."""
        self._behind.shutdown(cancel_futures=True)
        self._stream.discard()

    def _put(self, block: memoryview | bytes) -> None:
        self._stream.write(block)
        self._sha.update(block)


class _File:
    """A temporary file that `finish` renames to its path."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        # A worker that was believed lost may write the same shard.
        self._beside = scratch / f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp"
        self._stream = open(self._beside, "wb", buffering=0)  # noqa: SIM115 - closed by finish or discard

    def write(self, block: memoryview | bytes) -> None:
        view = memoryview(block)
        while view:  # a full disk may take a part and refuse the rest
            view = view[self._stream.write(view) :]

    def finish(self) -> None:
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self._beside, self.path)

    def discard(self) -> None:
        self._stream.close()
        self._beside.unlink(missing_ok=True)


class _Upload:
    """A multipart upload; the object exists once `finish` returns."""

    def __init__(self, url: RemotePath) -> None:
        store, path = filesystem(str(url))
        self._stream = store.open(path, "wb", block_size=PART_BYTES)

    def write(self, block: memoryview | bytes) -> None:
        self._stream.write(block)

    def finish(self) -> None:
        self._stream.close()

    def discard(self) -> None:
        with contextlib.suppress(Exception):  # the store may be gone; what it holds of the parts has no name
            self._stream.discard()
        self._stream.closed = True  # or a driver might finish the upload when it is collected
