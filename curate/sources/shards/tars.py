"""One tar as rows: its samples, joined if their members stand apart, and what becomes no row, by reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from curate.errors import DataError
from curate.io.image_headers import EXTENSIONS, HEADER_BYTES, BadImage, Header, NeedMore, probe
from curate.io.stores import is_remote
from curate.io.tars.fields import MAX_FIELD_BYTES, SIDE_FIELDS, TOO_LONG, FieldReader
from curate.io.tars.findings import LEFT_OUT, NO_EXTENSION, NO_NAME
from curate.io.tars.headers import BadTar
from curate.io.tars.samples import TarSample, count, further_images, samples
from curate.io.tars.scan import Member, Tar, open_tar, split_name
from curate.sources._index_cache import LeftOut
from curate.sources.shards.fields import side_values

PEEKED_JSONS = 100  # read while planning, to learn the columns
PEEKED_SAMPLES, PEEKED_REMOTE_SAMPLES = 5_000, 100  # looked through for them

Row = dict[str, Any]
Faults = tuple[tuple[str, str], ...]


@dataclass
class TarRows:
    """The rows of a tar.

    Args:
        rows: for each sample with an image: its name, the columns of its image, and those of its side fields.
        left_out: what became no row, and fields that could not be read.
        samples: number of samples.
        apart: number of samples whose members stand apart in the tar.
    """

    rows: list[tuple[str, Row, Row]]
    left_out: LeftOut
    samples: int
    apart: int = 0


@dataclass(slots=True)
class _SamplePart:
    """A sample, or a part of one.

    Args:
        extensions: of its members.
        header: of the image, or the reason why it has none.
        sides: extension → value of the side field.
        faults: (reason, member) of each field that could not be read.
    """

    name: str
    extensions: tuple[str, ...]
    faults: Faults
    image: Member | None = None
    header: Header | str = ""
    sides: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: TarSample, faults: Faults) -> _SamplePart:
        part = cls(sample.key, tuple(sample.members), faults, sides=sample.contents)
        for extension, member in sample.members.items():
            if extension in EXTENSIONS:
                part.image, part.header = member, sample.contents[extension]
                break
        return part

    def joined(self, other: _SamplePart) -> bool:
        """Join another part of the same sample; return False if both have a member of one extension."""
        if not set(self.extensions).isdisjoint(other.extensions):
            return False
        self.extensions += other.extensions
        self.sides |= other.sides
        self.faults = self.faults + other.faults
        if self.image is None:
            self.image, self.header = other.image, other.header
        return True


def read_tar(path: str) -> TarRows:
    """Read the headers of all members, the side fields, and each image's first bytes.

    Raises:
        DataError: the tar is damaged, cut, or cannot be read.
    """
    with _sound(path) as tar:
        read = _read_together(path, tar) or _read_apart(path, tar)
        behind = count(tar.behind())
    if not read.samples:
        read.left_out.add(LEFT_OUT["empty shard"], path)
    if behind:
        read.left_out.add(LEFT_OUT["members after the end"], path, behind)
    return read


def _read_together(path: str, tar: Tar) -> TarRows | None:
    """Read a tar whose samples each stand together; return None if a key comes again."""
    walk = _Walk(path)
    keys: set[str] = set()
    rows = []
    for part in walk.parts(tar):
        if part.name in keys:
            return None
        keys.add(part.name)
        if row := walk.row(part):
            rows.append(row)
    return TarRows(rows, walk.left_out, len(keys))


def _read_apart(path: str, tar: Tar) -> TarRows:
    """Read any tar; the values of all fields stay in memory until its end."""
    walk = _Walk(path)
    parts: dict[str, _SamplePart] = {}
    again: list[_SamplePart] = []
    apart: set[str] = set()
    for part in walk.parts(tar):
        first = parts.setdefault(part.name, part)
        if first is not part:
            if first.joined(part):
                apart.add(part.name)
            else:
                again.append(part)
    samples = (*parts.values(), *again)
    rows = [row for sample in samples if (row := walk.row(sample))]
    return TarRows(rows, walk.left_out, len(samples), len(apart))


def peek(path: str) -> list[Row]:
    """Return the side fields of a tar's first samples, from which the plan knows the columns."""
    walk = _Walk(path, images=False)
    most = PEEKED_REMOTE_SAMPLES if is_remote(path) else PEEKED_SAMPLES
    values: list[Row] = []
    with _sound(path) as tar:
        for number, part in enumerate(walk.parts(tar)):
            if number >= most or len(values) >= PEEKED_JSONS:
                break
            if part.sides.get("json") or "cls" in part.sides:
                values.append(side_values(part.sides, lambda *_: None))
    return values


@contextmanager
def _sound(path: str) -> Iterator[Tar]:
    try:
        with open_tar(path) as tar:
            yield tar
    except (BadTar, OSError) as error:
        raise DataError(f"{path}: not a sound tar ({error})", hint="fetch or write it again") from error


class _Walk:
    """One pass over a tar, which reads members and counts what it leaves out.

    Args:
        images: whether to read the headers of images.
    """

    def __init__(self, path: str, *, images: bool = True) -> None:
        self.path, self.images = path, images
        self.left_out = LeftOut()
        self._fields = FieldReader()
        self._faults: Faults = ()  # of the fields of the current sample

    def parts(self, tar: Tar) -> Iterator[_SamplePart]:
        """Yield the samples; a sample whose members stand apart comes in parts."""
        for sample in samples(tar.members(), self._tell, partial(self._look, tar)):
            faults, self._faults = self._faults, ()
            yield _SamplePart.of(sample, faults)

    def _tell(self, kind: str, member: str, what: str) -> None:
        if kind == "no key":
            self._leave_out(NO_NAME if split_name(member)[1] else NO_EXTENSION, member)
        elif kind in LEFT_OUT:
            self._leave_out(LEFT_OUT[kind], member)

    def _leave_out(self, reason: str, member: str, number: int = 1) -> None:
        self.left_out.add(reason, f"{self.path}: {member}", number)

    def _look(self, tar: Tar, extension: str, member: Member) -> Any:
        if extension in SIDE_FIELDS:
            if member.size > MAX_FIELD_BYTES:
                return self._fault(member.name, extension, TOO_LONG)
            value = self._fields.read(extension, tar.read(member.offset, member.size))
            for fault in self._fields.faults:
                self._fault(member.name, extension, fault)
            return value
        return _header(tar, member) if self.images and extension in EXTENSIONS else None

    def _fault(self, member: str, extension: str, what: str) -> None:
        self._faults += ((f".{extension} {what}", member),)

    def row(self, sample: _SamplePart) -> tuple[str, Row, Row] | None:
        """Return the row of a sample; count the reason if it has none."""
        if further := further_images(sample.extensions):
            self._leave_out(LEFT_OUT["several images"], sample.name, further)
        image, header = sample.image, sample.header
        if image is None or isinstance(header, str):
            self._leave_out(LEFT_OUT["no image"] if image is None else str(header), sample.name)
            return None
        row = {"offset": image.offset, "size": image.size, "ext": header.ext, "width": header.width,
               "height": header.height}  # fmt: skip
        sides = side_values(sample.sides, partial(self._fault, sample.name))
        if sample.faults or self._faults:  # not before: a sample that is no row is counted once
            for reason, member in (*sample.faults, *self._faults):
                self._leave_out(reason, member)
            self._faults = ()
        return sample.name, row, sides


def _header(tar: Tar, member: Member) -> Header | str:
    """Return the header of an image, or the reason why it has none."""
    try:
        try:
            return probe(tar.read(member.offset, min(member.size, HEADER_BYTES)))
        except NeedMore:
            return probe(tar.read(member.offset, member.size))
    except NeedMore:
        return "damaged header"
    except BadImage as error:
        return str(error)
