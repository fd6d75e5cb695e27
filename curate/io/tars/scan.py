"""Members of a tar, read from its headers alone, six times as fast as Python's tarfile; and its faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from curate.io.paths import find_files
from curate.io.stores import filesystem, is_remote, retry
from curate.io.tars.archive import BLOCK
from curate.io.tars.headers import (
    FILE,
    FOLDER,
    KINDS,
    UNKNOWN,
    BadTar,
    changed,
    header_text,
    is_header,
    member_name,
    no_header,
    number,
    padded,
    records,
)

MIN_WINDOW, MAX_WINDOW = 1 << 14, 1 << 20  # bytes read at once: more where members are small
MAX_HEADER_BYTES = 1 << 20  # of a long name or a PAX header; a tar may claim gigabytes

# Of a tar's name; only the first can be read in the middle.
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4",
           ".tar.lzma", ".tar.z")  # fmt: skip

_LONG_NAME, _GLOBAL, _OLD_SPARSE = b"L", b"g", b"S"
_PAX = frozenset((b"x", b"X"))
_EXTENDED = frozenset((b"L", b"K", b"x", b"X", b"g"))
_WITHOUT_BYTES = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_ZEROS = bytes(BLOCK)


class Member(NamedTuple):
    """One member of a tar.

    Args:
        name: as written; bytes that are no UTF-8 are surrogates.
        kind: FILE, FOLDER, LINK, DEVICE, SPARSE or UNKNOWN.
        offset: of its first byte.
        size: in bytes.
        pax: bytes of PAX headers before its own header.
    """

    name: str
    kind: str
    offset: int
    size: int
    pax: int


@dataclass
class _Ahead:
    """What the headers before a member say: its name and PAX records; the bytes of all and of PAX headers."""

    name: str | None = None
    records: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    pax: int = 0


class Tar:
    """An open plain tar: one pass over its members, and reads close to the current member.

    Args:
        stream: a seekable file object; it is closed with the tar.
        url: of a tar in a store; failed reads are retried.

    Attributes:
        bytes: size of the file.
        end: offset of the end-of-archive marker, once `members` has reached it.
    """

    def __init__(self, stream: IO[bytes], url: str | None = None) -> None:
        self._stream = stream
        self._url = url
        self.bytes = stream.seek(0, 2)
        self.end: int | None = None
        self._window = b""
        self._start = 0  # of the window in the file
        self._reach = MIN_WINDOW

    def __enter__(self) -> Tar:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the file; fewer at its end."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._window):
            # Many small members are read at once; of large members only the headers are.
            near = 0 <= begin <= len(self._window) + self._reach
            self._reach = min(self._reach * 2, MAX_WINDOW) if near else MIN_WINDOW
            self._window = self._fetch(offset, max(size, self._reach))
            self._start, begin = offset, 0
        return self._window[begin : begin + size]

    def _fetch(self, offset: int, size: int) -> bytes:
        if self._url is None:
            return self._read_at(offset, size)
        return retry(self._url, lambda: self._read_at(offset, size))

    def _read_at(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        data = self._stream.read(size) or b""
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        return data

    def members(self, start: int = 0) -> Iterator[Member]:
        """Yield the members in order: of USTAR, V7, GNU (long names, base-256 sizes), PAX (path, size, global headers).

        Args:
            start: offset of the first header.

        Raises:
            BadTar: the file is truncated, damaged, compressed or no tar; earlier members have been yielded.
        """
        at = start  # of the next header
        last = ""
        ahead = _Ahead()
        everywhere: dict[str, str] = {}
        while True:
            begin = at - self._start  # as `read`, without the call where members are small
            block = self._window[begin : begin + BLOCK] if begin >= 0 else b""
            if len(block) < BLOCK:
                block = self.read(at, BLOCK)
            if len(block) < BLOCK or block == _ZEROS:
                self._close(at, block, last, ahead)
                return
            if not is_header(block):
                raise BadTar(no_header(block, at, last))
            flag = block[156:157]
            size = number(block[124:136], at)
            if flag in _EXTENDED:
                at = self._extended(flag, at, size, ahead, everywhere)
                continue
            name = ahead.name or member_name(block)
            kind = KINDS.get(flag, UNKNOWN)
            offset = at + BLOCK
            if ahead.records or everywhere:
                name, size, kind = changed(everywhere | ahead.records, name, size, kind, at)
            if name.endswith("/"):
                kind, name = (FOLDER if kind == FILE else kind), name.rstrip("/")
            if flag == _OLD_SPARSE:
                offset += self._sparse_maps(block, at)
            stored = 0 if flag in _WITHOUT_BYTES else size
            if offset + stored > self.bytes:
                end = offset + stored
                raise BadTar(f"cut inside {name[-200:]!r}: it ends at byte {end}, the file at {self.bytes}")
            yield Member(name, kind, offset, size, ahead.pax)
            at = offset + padded(stored)
            last = name[-200:]
            if ahead.bytes:
                ahead = _Ahead()

    def _extended(self, flag: bytes, at: int, size: int, ahead: _Ahead, everywhere: dict[str, str]) -> int:
        """Read an extended header, of the next member or of all that follow; return the offset of the next header."""
        if size > MAX_HEADER_BYTES:
            raise BadTar(f"a long name or PAX header of {size} bytes at byte {at}")
        text = self.read(at + BLOCK, size)
        if len(text) < size:
            raise BadTar(f"cut at byte {self.bytes}, inside a long name or PAX header")
        length = BLOCK + padded(size)
        ahead.bytes += length
        if flag == _LONG_NAME:
            ahead.name = header_text(text)
        elif flag in _PAX:
            ahead.pax += length
            ahead.records = records(text, at)
        elif flag == _GLOBAL:
            everywhere |= records(text, at)
        return at + length

    def _close(self, at: int, block: bytes, last: str, ahead: _Ahead) -> None:
        """Check the end of the tar, where a block of zeros should be."""
        length = len(block)
        if not self.bytes:
            raise BadTar("an empty file")
        if ahead.bytes:
            raise BadTar(f"cut at byte {at}: a long name or PAX header without its member, after {last!r}")
        if length < BLOCK and not at:
            raise BadTar(no_header(block, at, last))
        if 0 < length < BLOCK:
            raise BadTar(f"cut at byte {self.bytes}, inside a header, after {last!r}")
        if not length:
            raise BadTar(f"cut at byte {self.bytes}, after {last!r}: no end-of-archive marker")
        self.end = at

    def _sparse_maps(self, block: bytes, at: int) -> int:
        """Return the length of the maps between the header of an old GNU sparse file and its bytes."""
        length = 0
        more = block[482]
        while more:
            length += BLOCK
            block = self.read(at + length, BLOCK)
            if len(block) < BLOCK:
                raise BadTar(f"cut at byte {self.bytes}, inside the map of a sparse file")
            more = block[504]
        return length

    def member_at(self, at: int) -> bool:
        """Tell whether there is a header at an offset."""
        block = self.read(at, BLOCK)
        return len(block) == BLOCK and is_header(block)

    def behind(self) -> Iterator[Member]:
        """Yield the readable members after the end-of-archive marker; `tar -i` reads them too."""
        with suppress(BadTar):
            while (at := self.beyond()) is not None and self.member_at(at):
                yield from self.members(at)

    def beyond(self) -> int | None:
        """Return the offset of the first nonzero byte after the end-of-archive marker; None if there is none."""
        assert self.end is not None
        for at in range(self.end, self.bytes, MAX_WINDOW):
            data = self._fetch(at, min(MAX_WINDOW, self.bytes - at))
            rest = data.lstrip(b"\0")
            if rest:
                return at + len(data) - len(rest)
        return None


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into its sample and extension at the first dot of the last part, as webdataset does.

    The sample's last part is empty if the member's begins with a dot.
    """
    dot = name.find(".", name.rfind("/") + 1)
    return (name, "") if dot < 0 else (name[:dot], name[dot + 1 :].lower())


def find_tars(path: str) -> list[str]:
    """Return the tars at a path, also compressed ones; see `find_files`."""
    return find_files(path, ENDINGS, "tar")


def open_tar(path: str) -> Tar:
    """Open a tar, local or at a URL.

    Raises:
        OSError: it cannot be opened.
        DataError: a store does not answer.
    """
    if not is_remote(path):
        if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe would block
            raise OSError(f"{path}: not a plain file")
        return Tar(open(path, "rb", buffering=0))  # closed with the tar
    files, inner = filesystem(path)
    return retry(path, lambda: Tar(files.open(inner, "rb"), path))
