"""Samples: the members of a tar grouped by name, as sources and `verify` both need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from curate.errors import DataError
from curate.io.image_headers import EXTENSIONS
from curate.io.tars.headers import FILE, FOLDER, SPARSE, BadTar
from curate.io.tars.scan import Member, split_name

Tell = Callable[
    [str, str, str], None
]  # takes a finding: its kind in findings.KINDS, the member, what exactly
Look = Callable[[str, Member], Any]  # takes an extension and its member


@dataclass(slots=True)
class TarSample:
    """Adjacent members that share a name up to the first dot, which is a sample in webdataset.

    Args:
        key: the name up to the first dot.
        members: extension in lower case → member.
        contents: extension → result of `look` for the member.
    """

    key: str
    members: dict[str, Member] = field(default_factory=dict)
    contents: dict[str, Any] = field(default_factory=dict)


def samples(members: Iterable[Member], tell: Tell, look: Look | None = None) -> Iterator[TarSample]:
    """Group the members of a tar into samples, in order.

    A sample whose members stand apart comes in parts. The samples before a fault of the tar are yielded first.

    Args:
        tell: called for each member that readers skip, merge or lose.
        look: called for each member while its bytes are in memory; `contents` gets the result.

    Raises:
        BadTar: see `Tar.members`.
        OSError, DataError: the tar cannot be read.
    """
    sample: TarSample | None = None
    try:
        for member in members:
            name = member.name
            if name[:1] == "/" or ".." in name or not name.isprintable():
                _look_at_name(name, tell)
            if member.kind != FILE:
                _tell_of_no_file(member, tell)
                continue
            key, extension = split_name(name)
            if not extension or key[-1:] in ("", "/"):
                tell("no key", name, "most readers pass over it: a member is called KEY.EXTENSION")
                continue
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = TarSample(key)
            if extension in sample.members:
                first = sample.members[extension].name
                tell("duplicate member", name, f"its sample has {first} already")
                continue
            sample.members[extension] = member
            if look is not None:
                sample.contents[extension] = look(extension, member)
    except (BadTar, OSError, DataError):
        if sample is not None:
            yield sample
        raise
    if sample is not None:
        yield sample


def _look_at_name(name: str, tell: Tell) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        tell("escaping name", name, "leads out of the folder that it is unpacked to")
    if any("\udc80" <= c <= "\udcff" for c in name):
        tell("name is not UTF-8", name, "readers differ in what they make of it")


def _tell_of_no_file(member: Member, tell: Tell) -> None:
    if member.kind == SPARSE:
        tell(SPARSE, member.name, "its bytes are no range of the tar")
    elif member.kind != FOLDER:
        tell(member.kind, member.name, "readers pass over it")


def further_images(extensions: Iterable[str]) -> int:
    """Return the number of images of a sample after its first; `2.jpg`, of the name `cat.2.jpg`, is one too."""
    return max(sum(e.rpartition(".")[2] in EXTENSIONS for e in extensions) - 1, 0)


def count(members: Iterable[Member]) -> int:
    """Return the number of samples of some members."""
    return sum(1 for _ in samples(members, lambda *_: None))
