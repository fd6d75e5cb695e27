"""WebDataset tars, ours or anyone's: one row a sample, pointing at the image's bytes inside its tar."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from curate.errors import DataError, RecipeError
from curate.images import EXTENSIONS, HEADER_BYTES, BadImage, NeedMore, probe
from curate.manifests import CORE, Class
from curate.ranges import is_remote
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
    """One sample as it stands in a tar: its image's member and range, and its side fields' bytes."""

    name: str
    image: str | None = None
    offset: int = 0
    size: int = 0
    header: bytes = b""
    fields: dict[str, bytes] = field(default_factory=dict)


class Shards(Source):
    """The source that `shards` opens."""

    def __init__(self, paths: list[str]) -> None:
        self.tars = sorted({tar for path in paths for tar in _expand(path)})
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
        with _open(self.tars[0]) as stream:
            peeked = list(islice(_samples(stream, self.tars[0], LeftOut()), PEEKED_SAMPLES))
        self.columns = dict(CORE) | side_kinds([read_side(s.fields) for s in peeked])

    def fingerprint(self) -> str:
        """Name, size and time of each tar; for a remote one what its store says of it."""
        if is_remote(self.root):
            import fsspec

            filesystem, _ = fsspec.core.url_to_fs(self.root)
            return json.dumps([[t, filesystem.size(t), str(filesystem.ukey(t))] for t in self.tars])
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
                for reason, name in missed:
                    left_out.add(reason, name)
                relative = tar[len(self.root) :].lstrip("/")
                rows += [row | {"file": relative} for row, _ in found]
                sides += [side for _, side in found]
                if progress:
                    progress(1, len(self.tars))
        require_rows(len(rows), self.root, left_out)
        return _assemble(rows, sides, left_out)


def _expand(path: str) -> list[str]:
    import braceexpand
    import fsspec

    found: list[str] = []
    for one in braceexpand.braceexpand(path):
        filesystem, place = fsspec.core.url_to_fs(one)
        if filesystem.isdir(place):
            matches = filesystem.glob(f"{place.rstrip('/')}/**/*.tar")
        else:
            matches = filesystem.glob(place) if any(c in place for c in "*?[") else [place]
            if not all(filesystem.exists(m) for m in matches):
                raise RecipeError(
                    f"{one}: no such tar", hint="`--set NAME=PATH` fills in a path of the recipe"
                )
        found += [filesystem.unstrip_protocol(m) if is_remote(one) else m for m in matches]
    return found


def _common(tars: list[str]) -> str:
    """Return the deepest folder above all tars."""
    folders = [tar.rpartition("/")[0].split("/") for tar in tars]
    shared = [
        parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    ]
    return "/".join(shared) or "/"


def _open(tar: str) -> Any:
    if not is_remote(tar):
        return open(tar, "rb")
    import fsspec

    return fsspec.open(tar, "rb").open()


def _read_tar(tar: str) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[tuple[str, str]]]:
    left_out = LeftOut()
    found = []
    missed: list[tuple[str, str]] = []
    with _open(tar) as stream:
        for sample in _samples(stream, tar, left_out):
            row, reason = _row(sample)
            if row is None:
                missed.append((reason, f"{tar}: {sample.name}"))
            else:
                found.append((row, read_side(sample.fields)))
    missed += [(reason, name) for reason, names in left_out.names.items() for name in names]
    return found, missed


def _samples(stream: Any, tar: str, left_out: LeftOut) -> Iterator[Sample]:
    """Yield the samples of a tar; members of one sample must stand together.

    Raises:
        DataError: the tar is damaged, cut, or holds sparse files.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            sample: Sample | None = None
            for member in archive:
                if not member.isreg() or member.sparse is not None:
                    if not member.isdir():
                        left_out.add("not a plain file in its tar", f"{tar}: {member.name}")
                    continue
                folder, base = os.path.split(member.name)
                stem, _, extension = base.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if sample is None or sample.name != name:
                    if sample is not None:
                        yield sample
                    sample = Sample(name)
                _take(sample, archive, member, extension.lower())
            if sample is not None:
                yield sample
            end = archive.offset
        stream.seek(end)
        if stream.read(512) != bytes(512):
            raise DataError(
                f"{tar}: cut at byte {end}, no end-of-archive marker", hint="fetch or write it again"
            )
    # tarfile leaks ValueError and OverflowError on damaged archives, besides its own errors
    except (tarfile.TarError, ValueError, OverflowError, EOFError, OSError) as error:
        raise DataError(f"{tar}: not a sound tar ({error})", hint="fetch or write it again") from error


def _take(sample: Sample, archive: tarfile.TarFile, member: tarfile.TarInfo, extension: str) -> None:
    if extension in EXTENSIONS and sample.image is None:
        sample.image, sample.offset, sample.size = member.name, member.offset_data, member.size
        stream = archive.extractfile(member)
        assert stream is not None
        sample.header = stream.read(HEADER_BYTES)
        try:
            probe(sample.header)
        except NeedMore:
            sample.header += stream.read()
        except BadImage:
            pass  # found again, and counted, when the row is made
    elif extension in SIDE_FIELDS and member.size <= MAX_FIELD_BYTES:
        stream = archive.extractfile(member)
        assert stream is not None
        sample.fields[extension] = stream.read()


def _row(sample: Sample) -> tuple[dict[str, Any] | None, str]:
    if not sample.name.rpartition("/")[2]:
        return None, "without a name"
    if sample.image is None:
        return None, "without an image"
    try:
        header = probe(sample.header)
    except BadImage as error:
        return None, str(error)
    except NeedMore:
        return None, "damaged header"
    row = {
        "key": make_key(sample.name.removeprefix("./").lstrip("/")),
        "offset": sample.offset,
        "size": sample.size,
    }
    return row | {"ext": header.ext, "width": header.width, "height": header.height}, ""


def _assemble(
    rows: list[dict[str, Any]], sides: list[dict[str, Any]], left_out: LeftOut
) -> tuple[pa.Table, tuple[Class, ...], LeftOut]:
    import pyarrow as pa

    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    told, classes = side_columns(sides)
    return pa.table(columns | told), classes, left_out
