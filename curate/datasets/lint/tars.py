"""What is wrong with anybody's tars: what readers would merge, lose or trip over, said by shard and member.

Samples are what webdataset makes of a tar: members that stand together and share a name up to the first dot.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from curate.datasets.lint.groups import Groups
from curate.errors import DataError, RecipeError
from curate.io.byte_ranges import ByteRangeReader
from curate.io.executors import cores
from curate.io.image_headers import EXTENSIONS, BadImage, NeedMore, probe
from curate.io.images import TooLarge, oddities
from curate.io.progress import Quiet
from curate.io.stores import is_remote
from curate.io.tars.fields import MAX_FIELD_BYTES, SIDE_FIELDS, FieldReader
from curate.io.tars.findings import Report, shown
from curate.io.tars.headers import BadTar
from curate.io.tars.samples import TarSample, count, samples
from curate.io.tars.scan import Member, Tar, find_tars, open_tar

IMAGES_PER_TASK = 64
MAX_IMAGE_BYTES = 1 << 28  # read whole, one a thread
PAX_SHARE = 0.02  # of a shard's bytes, from which on it is worth a word
SAME_KIND = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tif": "tiff", "pgm": "ppm"}


class Found(NamedTuple):
    """A finding on its way out of a thread: its kind, the member, and what exactly."""

    kind: str
    member: str
    what: str


def lint(
    paths: Sequence[str], *, images: bool = True, workers: int | None = None, progress: Quiet | None = None
) -> Report:
    """Look through tars of anyone and return what is wrong with them.

    Keys are compared across all shards, on disk where there are many of them.

    Args:
        paths: tars, folders of tars, patterns such as `/pool/{000..019}.tar`; local or URLs.
        images: also decode every image and read every `.json`, `.cls` and `.txt`.
        workers: threads that decode; one a core by default.

    Raises:
        RecipeError: nothing stands at a path.
    """
    tars = sorted({tar: _as_given(tar, path) for path in paths for tar in find_tars(path)}.values())
    if not tars:
        raise RecipeError(f"no tars at {', '.join(paths)}", hint="give a .tar, a folder of them or a pattern")
    report = Report(shards=len(tars))
    with (
        tempfile.TemporaryDirectory() as work,
        Groups(work) as groups,
        Decoders(workers or cores(), report) as decoders,
        (progress or Quiet()).stage("looking through shards", len(tars)) as stage,
    ):
        for number, tar in enumerate(tars):
            Shard(tar, number, report, groups, decoders if images else None).read()
            stage.advance()
        groups.report(report, tars)
    return report


def _as_given(tar: str, path: str) -> str:
    """Return a tar's path the way a user wrote: from the root, or from where they are."""
    return tar if is_remote(path) or os.path.isabs(path) else os.path.relpath(tar)


class Shard:
    """One tar on its way through the lint.

    Args:
        number: its place among the tars.
        decoders: takes the images; None to leave contents alone.
    """

    def __init__(
        self, path: str, number: int, report: Report, groups: Groups, decoders: Decoders | None
    ) -> None:
        self.path, self.number = path, number
        self.report, self.groups, self.decoders = report, groups, decoders
        self.samples = self.pax = 0
        self.fields = FieldReader()

    def _add(self, kind: str, member: str, what: str) -> None:
        self.report.add(kind, self.path, member, what)

    def read(self) -> None:
        """Walk through the tar, and say what is wrong with it as far as one can come."""
        try:
            with open_tar(self.path) as tar:
                self.report.bytes += tar.bytes
                self._members(tar)
                self._end(tar)
        except BadTar as error:
            self._add("not a sound tar", "", str(error))
        except (OSError, DataError) as error:
            self._add("unreadable", "", error.message if isinstance(error, DataError) else str(error))
        if self.decoders:
            self.decoders.flush(self.path)

    def _members(self, tar: Tar) -> None:
        for sample in samples(self._counted(tar), self._add, partial(self._content, tar)):
            self._sample(sample)

    def _counted(self, tar: Tar) -> Iterator[Member]:
        for member in tar.members():
            self.report.members += 1
            self.pax += member.pax
            yield member

    def _sample(self, sample: TarSample) -> None:
        """Take a sample that is complete."""
        self.groups.add(self.number, self.samples, sample.key, list(sample.members))
        self.samples += 1
        self.report.samples += 1
        images = [e for e in sample.members if e in EXTENSIONS]
        if not images:
            dotted = [m.name for e, m in sample.members.items() if e.rpartition(".")[2] in EXTENSIONS]
            why = (
                f": to a reader the extension of {shown(dotted[0])} begins at the first dot" if dotted else ""
            )
            self._add("no image", sample.key, f"has {shown(' '.join(sample.members))}{why}")
        elif len(images) > 1:
            self._add(
                "several images", sample.key, f"has {shown(' '.join(images))}; readers take the first or any"
            )

    def _content(self, tar: Tar, extension: str, member: Member) -> None:
        """Have an image decoded; look into a text while it is near."""
        kind = extension.rpartition(".")[2]
        if kind in SIDE_FIELDS and member.size > MAX_FIELD_BYTES:
            self._add("oversize field", member.name, f"{member.size:,} bytes; a field is read up to 1 MiB")
        elif self.decoders is None:
            return
        elif kind in EXTENSIONS:
            if member.size > MAX_IMAGE_BYTES:
                self._add("oversize image", member.name, f"{member.size:,} bytes")
            else:
                self.decoders.put(self.path, member)
        elif kind in SIDE_FIELDS:
            self.fields.read(kind, tar.read(member.offset, member.size))
            for fault in self.fields.faults:
                self._add("unreadable field", member.name, f"a .{kind} {fault}")

    def _end(self, tar: Tar) -> None:
        """Look at a tar that could be walked to its end."""
        if not self.samples:
            self._add("empty shard", "", "no samples in it; readers raise an error or go on with nothing")
        if self.pax > PAX_SHARE * tar.bytes:
            sizes = (
                f"{self.pax / tar.bytes:.1%} of the bytes are PAX headers, which tell no more than fractions of a"
                " second; times in whole seconds need none: ShardWriter(..., mtime=int(time.time()))"
            )
            self._add("PAX headers", "", sizes)
        beyond = tar.beyond()
        if beyond is not None:
            found = count(tar.behind())
            samples = f"{found:,} samples " if found else ""
            what = f"{samples}after the end-of-archive marker, at byte {beyond:,}; no reader goes there"
            self._add("members after the end" if found else "bytes after the end", "", what)


class Decoders:
    """Threads that decode the images of tars; what they find comes back into the report.

    Args:
        workers: threads.
    """

    def __init__(self, workers: int, report: Report) -> None:
        self._pool = ThreadPoolExecutor(workers)
        self._limit = (
            workers * 4
        )  # tasks waiting, so that a hundred million members are not all queued at once
        self._report = report
        self._batch: list[Member] = []
        self._waiting: deque[tuple[str, Future[tuple[Counter[str], list[Found]]]]] = deque()

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._drain(0 if kind is None else len(self._waiting))
        self._pool.shutdown(cancel_futures=True)

    def put(self, path: str, member: Member) -> None:
        """Have an image of a tar decoded."""
        self._batch.append(member)
        if len(self._batch) >= IMAGES_PER_TASK:
            self.flush(path)

    def flush(self, path: str) -> None:
        """Hand over what was put; all of one tar."""
        if self._batch:
            self._waiting.append((path, self._pool.submit(_look, path, self._batch)))
            self._batch = []
        self._drain(self._limit)

    def _drain(self, left: int) -> None:
        while len(self._waiting) > left:
            path, future = self._waiting.popleft()
            images, found = future.result()
            self._report.images.update(images)
            for finding in found:
                self._report.add(finding.kind, path, finding.member, finding.what)


def _look(path: str, members: list[Member]) -> tuple[Counter[str], list[Found]]:
    """Decode images of a tar; return how many of each kind they are, and what is wrong with them."""
    folder, _, name = path.rpartition("/")
    reader = ByteRangeReader(folder or ("/" if path.startswith("/") else "."))
    images: Counter[str] = Counter()
    found = []
    for member in members:
        try:
            data = reader.read(name, member.offset, member.size)
            kind = probe(data).ext
            extension = member.name.rpartition(".")[2].lower()
            if SAME_KIND.get(extension, extension) != kind:
                found.append(Found("wrong extension", member.name, f"its bytes are {kind}"))
            found += [Found(odd, member.name, "decoded all the same") for odd in oddities(data)]
            images[kind] += 1
        except TooLarge as error:
            found.append(Found("oversize image", member.name, str(error)))
        except BadImage as error:
            found.append(Found("undecodable image", member.name, str(error)))
        except NeedMore:
            found.append(Found("undecodable image", member.name, "damaged header"))
        except DataError as error:
            found.append(Found("unreadable", member.name, error.message))
    return images, found
