"""One tar as rows: its samples, joined where their members stand apart, and what becomes none, by reason."""

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
    """What a tar comes to.

    Args:
        rows: of each sample with an image its name, what it is and where it lies, and what its side fields tell.
        left_out: what became no row, and fields that could not be read.
        samples: how many there are.
        apart: how many of them were put together of members that stand apart.
    """

    rows: list[tuple[str, Row, Row]]
    left_out: LeftOut
    samples: int
    apart: int = 0


@dataclass(slots=True)
class _Found:
    """A sample so far.

    Args:
        extensions: of its members.
        header: of the image, or why it has none.
        sides: extension → what that field says.
        faults: reason and member, where a field could not be read.
    """

    name: str
    extensions: tuple[str, ...]
    faults: Faults
    image: Member | None = None
    header: Header | str = ""
    sides: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: TarSample, faults: Faults) -> _Found:
        found = cls(sample.key, tuple(sample.members), faults, sides=sample.contents)
        for extension, member in sample.members.items():
            if extension in EXTENSIONS:
                found.image, found.header = member, sample.contents[extension]
                break
        return found

    def joined(self, other: _Found) -> bool:
        """Take what stands apart from the rest of the sample; False where that has the same members already."""
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
    """Read a tar in which the members of each sample stand together; None where a key comes again."""
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
    """Read any tar; all that its fields tell is kept until its end."""
    walk = _Walk(path)
    found: dict[str, _Found] = {}
    again: list[_Found] = []
    apart: set[str] = set()
    for part in walk.parts(tar):
        first = found.setdefault(part.name, part)
        if first is not part:
            if first.joined(part):
                apart.add(part.name)
            else:
                again.append(part)
    samples = (*found.values(), *again)
    rows = [row for one in samples if (row := walk.row(one))]
    return TarRows(rows, walk.left_out, len(samples), len(apart))


def peeked(path: str) -> list[Row]:
    """Return what side fields of the first samples of a tar tell, from which the columns are known while planning."""
    walk = _Walk(path, images=False)
    most = PEEKED_REMOTE_SAMPLES if is_remote(path) else PEEKED_SAMPLES
    told: list[Row] = []
    with _sound(path) as tar:
        for number, part in enumerate(walk.parts(tar)):
            if number >= most or len(told) >= PEEKED_JSONS:
                break
            if part.sides.get("json") or "cls" in part.sides:
                told.append(side_values(part.sides, lambda *_: None))
    return told


@contextmanager
def _sound(path: str) -> Iterator[Tar]:
    try:
        with open_tar(path) as tar:
            yield tar
    except (BadTar, OSError) as error:
        raise DataError(f"{path}: not a sound tar ({error})", hint="fetch or write it again") from error


class _Walk:
    """One walk through a tar: what it makes of members and samples, and counts of them.

    Args:
        images: whether to look at images too.
    """

    def __init__(self, path: str, *, images: bool = True) -> None:
        self.path, self.images = path, images
        self.left_out = LeftOut()
        self._fields = FieldReader()
        self._faults: Faults = ()  # of the fields of the sample at hand

    def parts(self, tar: Tar) -> Iterator[_Found]:
        """Yield the samples, or their parts where members stand apart."""
        for sample in samples(tar.members(), self._tell, partial(self._look, tar)):
            faults, self._faults = self._faults, ()
            yield _Found.of(sample, faults)

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
            found = self._fields.read(extension, tar.read(member.offset, member.size))
            for fault in self._fields.faults:
                self._fault(member.name, extension, fault)
            return found
        return _header(tar, member) if self.images and extension in EXTENSIONS else None

    def _fault(self, member: str, extension: str, what: str) -> None:
        self._faults += ((f".{extension} {what}", member),)

    def row(self, found: _Found) -> tuple[str, Row, Row] | None:
        """Return the row of a sample, or count why it is none."""
        if further := further_images(found.extensions):
            self._leave_out(LEFT_OUT["several images"], found.name, further)
        image, header = found.image, found.header
        if image is None or isinstance(header, str):
            self._leave_out(LEFT_OUT["no image"] if image is None else str(header), found.name)
            return None
        row = {"offset": image.offset, "size": image.size, "ext": header.ext, "width": header.width,
               "height": header.height}  # fmt: skip
        sides = side_values(found.sides, partial(self._fault, found.name))
        if found.faults or self._faults:  # not before: a sample that is no row is counted once
            for reason, member in (*found.faults, *self._faults):
                self._leave_out(reason, member)
            self._faults = ()
        return found.name, row, sides


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
