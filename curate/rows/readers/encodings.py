"""Bytes of text tables: compressed or not, in UTF-8, UTF-16 or UTF-32."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import shutil
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TextIO

from curate.errors import DataError, first_line

_HEAD_BYTES = 4096  # looked at to learn the encoding
_ZEROS = 0.2  # share of zero bytes from which a file is UTF-16: Latin text has a half
# The mark of UTF-32 begins as that of UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def ending(path: str | Path) -> str:
    """Return the extension of a file's name, in lower case and without that of a compression: `T.CSV.gz` is a `csv`."""
    name = Path(path).name.lower()
    return name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]


def is_json(path: str | Path) -> bool:
    """Tell whether a file is JSON or JSON lines by its extension."""
    return ending(path) in ("json", "jsonl", "ndjson")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if its extension says so.

    Raises:
        DataError: the file cannot be opened or decompressed.
    """
    try:
        open(path, "rb").close()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror})", hint="is it a file, and yours?"
        ) from None
    with _named(path), _stream(path) as stream:
        yield stream


def encoding(path: Path) -> str:
    """Return a file's encoding: "utf-16" or "utf-32" if it has their byte order mark, else "utf-8".

    Raises:
        DataError: the file looks like UTF-16 without a mark.
    """
    status = path.stat()
    return _encoding(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _encoding(path: Path, _time: int, _size: int) -> str:
    with opened(path) as stream:
        head = stream.read(_HEAD_BYTES)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head.count(0) > _ZEROS * len(head):
        raise DataError(
            f"{path}: is not UTF-8; every other byte is zero, as in UTF-16 without its mark",
            hint=f"make it UTF-8 first: iconv -f UTF-16LE -t UTF-8 {path.name} > utf8-{path.name}",
        )
    return "utf-8"


@contextlib.contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """Open a file as text of its encoding; line ends stay, and bytes that are no UTF-8 become surrogates.

    Raises:
        DataError: the file cannot be decompressed, or ends inside a character.
    """
    name = encoding(path)
    with opened(path) as stream, _named(path):
        codec, errors = ("utf-8-sig", "surrogateescape") if name == "utf-8" else (name, "strict")
        with io.TextIOWrapper(stream, encoding=codec, errors=errors, newline="") as lines:
            yield lines


@contextlib.contextmanager
def as_utf8(path: Path) -> Iterator[Path]:
    """Yield a file in UTF-8: the file itself, or a temporary copy.

    Raises:
        DataError: the file cannot be decompressed, or ends inside a character.
    """
    if encoding(path) == "utf-8":
        yield path
        return
    with TemporaryDirectory() as work:
        copy = Path(work, f"utf8.{ending(path)}")
        with opened_text(path) as lines, open(copy, "w", encoding="utf-8", newline="") as out:
            shutil.copyfileobj(lines, out)
        yield copy


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise an error with the file's name if its bytes cannot be decompressed or decoded."""
    try:
        yield
    except (EOFError, OSError, UnicodeError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is packed
            raise
        what = "decoded" if isinstance(error, UnicodeError) else "unpacked"
        raise DataError(
            f"{path}: cannot be {what} ({first_line(error)})", hint="is the file complete? fetch it again"
        ) from None


def _stream(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if path.suffix.lower() == ".zst":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return open(path, "rb")
