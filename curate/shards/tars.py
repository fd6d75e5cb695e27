"""Plain tars (USTAR), the same bytes for the same members."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curate.errors import DataError

BLOCK = 512
MAX_MEMBER_BYTES = 8**11 - 1  # what eleven octal digits hold: 8 GiB less one

# A header up to the size: name, mode 0644, uid and gid 0. Then mtime 0, the checksum, type, magic, owner.
_OWNER = b"0000644\0" + b"0000000\0" * 2
_REST = b"00000000000\0"
_KIND = b"0" + bytes(100) + b"ustar\x0000" + bytes(64 + 16 + 155 + 12)  # no device numbers, as tarfile has it
_FIXED_SUM = sum(_OWNER) + sum(_REST) + 8 * 32 + sum(_KIND)  # the checksum counts itself as eight spaces


def header(name: str, size: int) -> bytes:
    """Return the header of a plain file: mode 0644, owner 0, time 0.

    Names over 100 bytes get a prefix where they can be cut at a slash, else a GNU long-name header before.

    Raises:
        DataError: a member of 8 GiB or more.
    """
    if size > MAX_MEMBER_BYTES:
        raise DataError(f"{name}: {size:,} bytes do not fit into a tar member", hint="leave this sample out")
    raw = name.encode()
    if len(raw) > 100:
        return _long(name, size)
    digits = b"%011o\0" % size
    checksum = _FIXED_SUM + sum(raw) + sum(digits)
    return raw.ljust(100, b"\0") + _OWNER + digits + _REST + b"%06o\0 " % checksum + _KIND


def headers(names: Sequence[bytes], sizes: np.ndarray) -> np.ndarray:
    """Return the headers of many plain files with names of at most 100 bytes, as `header` makes them, in bulk.

    Returns:
        uint8 of shape (M, 512).
    """
    heads = np.zeros((len(names), BLOCK), np.uint8)
    if not len(names):
        return heads
    heads[:, :100] = np.array(names, "S100").view(np.uint8).reshape(-1, 100)
    fixed = np.frombuffer(header("", 0), np.uint8)
    heads[:, 100:] = fixed[100:]
    digits = (sizes[:, None] >> np.arange(30, -1, -3)) & 7  # eleven octal digits
    heads[:, 124:135] = digits + ord("0")
    heads[:, 148:156] = ord(" ")  # the checksum counts itself as eight spaces
    sums = heads.sum(axis=1, dtype=np.int64)
    heads[:, 148:154] = ((sums[:, None] >> np.arange(15, -1, -3)) & 7) + ord("0")
    heads[:, 154] = 0
    return heads


def _long(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return member.tobuf(tarfile.GNU_FORMAT)


class TarWriter:
    """Write a tar beside its final name; `close` makes it durable and gives it the name.

    Args:
        path: the final name. Nothing stands there before `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f".{path.name}.tmp")
        self._stream = open(self._beside, "wb", buffering=0)  # noqa: SIM115 - closed by close or abort
        self._sha = hashlib.sha256()
        self.bytes = 0

    def put(self, block: memoryview | bytes) -> None:
        """Write whole blocks of members."""
        self.bytes += len(block)
        self._sha.update(block)
        view = memoryview(block)
        while view:  # a full disk may take a part and refuse the rest
            view = view[self._stream.write(view) :]

    def close(self) -> str:
        """Finish, sync and name the tar; return its sha256 in hex."""
        self.put(bytes(-(self.bytes + 2 * BLOCK) % tarfile.RECORDSIZE + 2 * BLOCK))
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self._beside, self.path)
        return self._sha.hexdigest()

    def abort(self) -> None:
        """Leave nothing."""
        self._stream.close()
        self._beside.unlink(missing_ok=True)
