"""The samples of webdataset tars, read from first byte to last: grouped by key, checked, and never trusted."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import IO, Any, NamedTuple

from curate.errors import DataError
from curate.io.image_headers import EXTENSIONS
from curate.io.paths import as_path
from curate.io.tars.archive import BLOCK
from curate.io.tars.fields import MAX_FIELD_BYTES, NOT_UTF8, TOO_LONG
from curate.io.tars.headers import is_header

MAX_LABEL_DIGITS = 18  # what a label of 64 bits holds
COMPRESSED = (b"\x1f\x8b", b"BZ", b"\xfd7")  # gzip, bzip2, xz: the first two bytes


class StreamSample(NamedTuple):
    """A sample of a stream; -1 for no label."""

    key: str
    data: bytes
    label: int
    caption: str | None


class _TailedStream:
    """A stream that remembers its last block: a tar that ends in no zeros was cut, which readers do not notice.

    And what was read last, in which the end-of-archive marker stands when a reader stops.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.head = self.tail = self.last = b""

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.head = self.head or data[:2]
        self.tail = (self.tail + data[-BLOCK:])[-BLOCK:]
        self.last = data or self.last
        return data

    def goes_on(self) -> bool:
        """Read to the end; whether more members stand behind the marker that a reader stopped at."""
        blocks = [self.last[i : i + BLOCK] for i in range(0, len(self.last), BLOCK)]
        more = any(not any(a) and len(b) == BLOCK and is_header(b) for a, b in pairwise(blocks))
        while data := self.read(1 << 20):
            more = more or data.strip(b"\0") != b""
        return more


def read_samples(tars: Iterable[str], left_out: Counter[str]) -> Iterator[StreamSample]:
    """Yield the samples of tars, in their order.

    Args:
        tars: paths or URLs.
        left_out: counts what is left out of samples, and why; see `Stream`.

    Raises:
        DataError: a tar cannot be read to its end.
    """
    from webdataset import tariterators

    for tar in tars:
        with as_path(tar).open("rb") as opened:
            stream = _TailedStream(opened)
            try:
                members = tariterators.tar_file_expander([{"url": tar, "stream": stream}])
                keys: set[str] = set()
                for sample in tariterators.group_by_keys(members):
                    if sample["__key__"] in keys:
                        left_out["samples whose key came before in their tar"] += 1
                    keys.add(sample["__key__"])
                    if (read := _sample(sample, left_out)) is not None:
                        yield read
                goes_on = stream.goes_on()
            # tarfile's own errors and what it leaks on damaged archives; webdataset adds the stream to their words.
            except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
                reason = str(error.args[0] if error.args else error).split(" @ ")[0]
                raise _damaged(tar, reason) from error
        # What is compressed has an end of its own, and its reader has looked for it.
        if stream.head in COMPRESSED:
            continue
        if any(stream.tail) or not stream.tail:
            raise _damaged(tar, "it has no end-of-archive marker: it was cut")
        if goes_on:
            left_out["tars with bytes behind their end"] += 1


def _damaged(tar: str, why: object) -> DataError:
    return DataError(
        f"{tar}: cannot be read to its end ({why})", hint=f"`curate verify {tar}` says what is wrong with it"
    )


def _sample(fields: dict[str, Any], left_out: Counter[str]) -> StreamSample | None:
    images = [name for name in fields if name.rpartition(".")[2] in EXTENSIONS]
    if not images:
        left_out["samples without an image"] += 1
        return None
    if len(images) > 1:
        left_out["images after the first of a sample"] += len(images) - 1
    label = fields.get("cls", b"").strip()
    if label not in (b"", b"-1") and not (label.isdigit() and len(label) <= MAX_LABEL_DIGITS):
        left_out["labels that are no number"] += 1
        label = b""
    # A name that is not UTF-8 cannot be stored; it is told as it is printed.
    key = fields["__key__"].encode("utf-8", "backslashreplace").decode()
    return StreamSample(key, fields[images[0]], int(label or -1), _caption(fields.get("txt"), left_out))


def _caption(data: bytes | None, left_out: Counter[str]) -> str | None:
    if data is None:
        return None
    try:
        if len(data) <= MAX_FIELD_BYTES:
            return data.decode().removeprefix("\ufeff")
        left_out[f"texts {TOO_LONG}"] += 1
    except UnicodeDecodeError:
        left_out[f"texts {NOT_UTF8}"] += 1
    return None
