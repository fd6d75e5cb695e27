"""WebDataset tars, ours or anyone's: one row a sample, pointing at the image's bytes inside its tar."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from curate.errors import DataError, RecipeError
from curate.images import EXTENSIONS, HEADER_BYTES, BadImage, Header, NeedMore, probe
from curate.manifests import CORE, Class
from curate.places import filesystem, is_remote
from curate.shards.headers import FILE, FOLDER, BadTar
from curate.shards.scans import Member, Tar, find_tars, open_tar, split_name
from curate.sources import Index, Progress, Source
from curate.sources._indexes import LeftOut, cached, make_key, require_rows
from curate.sources._sides import SIDE_FIELDS, read_side, side_columns, side_kinds

if TYPE_CHECKING:
    import pyarrow as pa

PEEKED_SAMPLES = 100  # read while planning, to learn the columns
MAX_FIELD_BYTES = 1 << 20  # of a .cls, .txt or .json member


def shards(*, path: str | list[str]) -> Source:
    """Take the samples of WebDataset tars.

    Members that share a name up to the first dot are one sample: an image, `.cls` (a class number or name),
    `.txt` (the caption) and `.json` (other columns, in lower case; lists and objects stay JSON text). Without
    class names, classes are called by their numbers, or by wnid where a column `wnid` tells one for each.

    Args:
        path: a tar, a folder of tars, a pattern such as `/pool/{000..019}.tar` or `*.tar`, or a list of these;
            local or a URL. Compressed tars are refused, for they cannot be read in the middle.
    """
    return Shards([path] if isinstance(path, str) else path)


@dataclass
class Sample:
    """One sample as it stands in a tar: where its image is and what it is, and its side fields' bytes."""

    name: str
    image: Member | None = None
    header: Header | str = ""  # of the image, or why it has none
    fields: dict[str, bytes] = field(default_factory=dict)


class Shards(Source):
    """The source that `shards` opens."""

    def __init__(self, paths: list[str]) -> None:
        self.tars = sorted({tar for path in paths for tar in find_tars(path)})
        if not self.tars:
            raise RecipeError(
                f"no tars at {', '.join(paths)}", hint="give a .tar, a folder of them or a pattern"
            )
        packed = [t for t in self.tars if not t.endswith(".tar")]
        if packed:
            raise RecipeError(
                f"{packed[0]}: not a plain .tar", hint="a compressed tar has no byte ranges: unpack it"
            )
        self.root = _common(self.tars)
        with closing(_samples(self.tars[0], LeftOut())) as samples:
            peeked = list(islice(samples, PEEKED_SAMPLES))
        self.columns = dict(CORE) | side_kinds([read_side(s.fields) for s in peeked])

    def fingerprint(self) -> str:
        """Name, size and time of each tar; for a remote one what its store says of it."""
        if is_remote(self.root):
            files, _ = filesystem(self.root)
            return json.dumps([[t, files.size(t), str(files.ukey(t))] for t in self.tars])
        return json.dumps([[t, os.stat(t).st_size, os.stat(t).st_mtime_ns] for t in self.tars])

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Read the headers of all members, the side fields, and each image's first bytes."""
        return cached("shards", {"tars": self.tars}, fingerprint, lambda: self._read(progress))

    def _read(self, progress: Progress | None) -> tuple[pa.Table, tuple[Class, ...], LeftOut]:
        left_out = LeftOut()
        rows: list[dict[str, Any]] = []
        sides: list[dict[str, Any]] = []
        with ThreadPoolExecutor(max_workers=4) as pool:
            for tar, (found, missed) in zip(self.tars, pool.map(_read_tar, self.tars), strict=True):
                left_out.take(missed.counts, missed.names)
                relative = tar[len(self.root) :].lstrip("/")
                rows += [row | {"file": relative} for row, _ in found]
                sides += [side for _, side in found]
                if progress:
                    progress(1, len(self.tars))
        require_rows(len(rows), self.tars[0] if len(self.tars) == 1 else self.root, left_out)
        return _assemble(rows, sides, left_out)


def _common(tars: list[str]) -> str:
    """Return the deepest folder above all tars."""
    folders = [tar.rpartition("/")[0].split("/") for tar in tars]
    shared = [
        parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    ]
    return "/".join(shared) or "/"


Read = tuple[list[tuple[dict[str, Any], dict[str, Any]]], LeftOut]


def _read_tar(tar: str) -> Read:
    """Return the rows of a tar, each with its side fields, and what became none."""
    left_out = LeftOut()
    found = []
    for sample in _samples(tar, left_out):
        row, reason = _row(sample)
        if row is None:
            left_out.add(reason, f"{tar}: {sample.name}")
        else:
            found.append((row, read_side(sample.fields)))
    return found, left_out


def _samples(path: str, left_out: LeftOut) -> Generator[Sample, None, None]:
    """Yield the samples of a tar; members of one sample must stand together.

    Raises:
        DataError: the tar is damaged, cut, or cannot be read.
    """
    try:
        with open_tar(path) as tar:
            sample: Sample | None = None
            for member in tar.members():
                if member.kind != FILE:
                    if member.kind != FOLDER:
                        left_out.add("not a plain file in its tar", f"{path}: {member.name}")
                    continue
                name, extension = split_name(member.name)
                if sample is None or sample.name != name:
                    if sample is not None:
                        yield sample
                    sample = Sample(name)
                if extension in EXTENSIONS:
                    if sample.image is None:
                        sample.image, sample.header = member, _header(tar, member)
                elif extension in SIDE_FIELDS and member.size <= MAX_FIELD_BYTES:
                    sample.fields[extension] = tar.read(member.offset, member.size)
            if sample is not None:
                yield sample
    except (BadTar, OSError) as error:
        raise DataError(f"{path}: not a sound tar ({error})", hint="fetch or write it again") from error


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


def _row(sample: Sample) -> tuple[dict[str, Any] | None, str]:
    """Return the row of a sample, or why it is none."""
    image, header = sample.image, sample.header
    if not sample.name.rpartition("/")[2]:
        return None, "without a name"
    if image is None:
        return None, "without an image"
    if isinstance(header, str):
        return None, header
    key = make_key(sample.name.removeprefix("./").lstrip("/"))
    return {"key": key, "offset": image.offset, "size": image.size, **header._asdict()}, ""


def _assemble(
    rows: list[dict[str, Any]], sides: list[dict[str, Any]], left_out: LeftOut
) -> tuple[pa.Table, tuple[Class, ...], LeftOut]:
    import pyarrow as pa

    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    told, classes = side_columns(sides)
    return pa.table(columns | told), classes, left_out
