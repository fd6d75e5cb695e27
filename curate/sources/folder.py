"""A folder of images: class folders, below `train` and `val` or not."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, NamedTuple

from curate.errors import DataError, RecipeError
from curate.io.executors import cores
from curate.io.image_headers import EXTENSIONS, HEADER_BYTES, BadImage, Header, NeedMore, probe
from curate.io.stores import is_remote
from curate.rows.manifest import CORE, Class
from curate.sources import Index, Progress, Source
from curate.sources._folder_scan import fingerprint, is_folder
from curate.sources._index_cache import LeftOut, cached, class_list, make_key, require_rows

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
PASSED_OVER = {"no image by its extension", "beside the splits"}  # left out, but not broken
FILES_PER_TASK = 256


class SplitFolder(NamedTuple):
    """A folder of class folders: its path, the prefix of its files' names, and its split."""

    path: str
    prefix: str
    split: str | None


class ImageFile(NamedTuple):
    """A file below the root: its relative path, split, class folder, and size in bytes."""

    file: str
    split: str | None
    folder: str | None
    size: int


def folder(*, path: str, split: str | None = None, broken: Literal["skip", "error"] = "skip") -> Source:
    """Take the images of a folder, each class a folder of its own.

    Classes are the folders right below PATH, or below PATH/train, PATH/val and PATH/test, which become the
    column `split` (a folder of such a name that holds images and is among others is a class). Deeper
    folders belong to their class. Labels follow the order of class names. A folder named by a wnid gets
    its class name from WordNet. Images outside of class folders have no label. Names that start with a
    dot, files whose extension is not that of an image, and files beside the splits are ignored.

    Args:
        path: the folder.
        split: take only this split.
        broken: images whose header cannot be read: count them and go on, or refuse.
    """
    return FolderSource(path, split, broken)


class FolderSource(Source):
    """The source that `folder` opens."""

    def __init__(self, path: str, split: str | None, broken: str) -> None:
        if is_remote(path):
            raise RecipeError(
                f"{path}: `folder` takes the files of this machine, one by one",
                hint="in a store, pack them into tars (`source: {shards: URL}`) or take a dataset that is there",
            )
        self.root = os.path.abspath(path)
        if not os.path.isdir(path):
            raise RecipeError(
                f"{path}: no such folder", hint="`--set NAME=FOLDER` fills in a path of the recipe"
            )
        self.split, self.broken = split, broken
        self.tops, self.folders = self._layout()
        self.columns = dict(CORE)
        self.classes = class_list(self.folders)
        if any(c.wnid for c in self.classes):
            self.columns["wnid"] = "VARCHAR"

    def _layout(self) -> tuple[list[SplitFolder], list[str]]:
        """Return the folders that hold class folders, and the names of all classes."""
        below = {entry.name: entry.path for entry in _folders(self.root)}
        splits = [
            SplitFolder(path, f"{n}/", SPLITS[n.lower()]) for n, path in below.items() if n.lower() in SPLITS
        ]
        if len(splits) < len(below) and not any(True for top in splits for _ in _folders(top.path)):
            splits = []  # CIFAR-100 has a class called "train": it stands among others and holds images
        chosen = [top for top in splits if self.split in (None, top.split, top.prefix.rstrip("/"))]
        if self.split and not chosen:
            hint = f"its folders are {', '.join(sorted(below)[:5]) or 'none'}"
            raise RecipeError(f"{self.root}: no split {self.split!r}", hint=hint)
        # Classes are those of all splits, so that a class has one label whichever split is taken.
        alone = [SplitFolder(self.root, "", None)]
        names = {entry.name for top in splits or alone for entry in _folders(top.path)}
        return chosen or alone, sorted(filter(_is_utf8, names))

    def _walk(self, left_out: LeftOut) -> Iterator[ImageFile]:
        if self.tops[0].split:
            for entry in _entries(self.root):
                if not (is_folder(entry) and entry.name.lower() in SPLITS):
                    left_out.add("beside the splits", entry.name)
        for top in self.tops:
            up = (_identity(self.root), _identity(top.path))
            yield from self._below(left_out, top.path, top.prefix, top.split, None, up)

    def _below(
        self, left_out: LeftOut, path: str, prefix: str, split: str | None, folder: str | None, up: tuple
    ) -> Iterator[ImageFile]:
        for entry in _entries(path):
            name = entry.name
            if is_folder(entry):
                identity = _identity(entry.path)
                if identity not in up:  # a link to a folder above would never end
                    inner = f"{prefix}{name}/"
                    yield from self._below(
                        left_out, entry.path, inner, split, folder or name, (*up, identity)
                    )
            elif os.path.splitext(name)[1][1:].lower() in EXTENSIONS:
                status = _status(entry)
                if status is None:
                    left_out.add("broken link", prefix + name)
                elif not stat.S_ISREG(status.st_mode):
                    left_out.add("not a plain file", prefix + name)
                elif not _is_utf8(prefix + name):
                    left_out.add("name is not UTF-8", prefix + name)
                else:
                    yield ImageFile(prefix + name, split, folder, status.st_size)
            else:
                left_out.add("no image by its extension", prefix + name)

    def fingerprint(self) -> str:
        """Hash the names, sizes and times of all files; their bytes are not read."""
        try:
            return fingerprint([top.path for top in self.tops])
        except OSError as error:
            raise DataError(
                f"{self.root}: cannot be listed ({error})", hint="check its permissions"
            ) from error

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Read the header of every image for its kind, width and height."""
        identity = {"path": self.root, "split": self.split, "broken": self.broken}
        return cached("folder", identity, fingerprint, lambda: self._read(progress))

    def _read(self, progress: Progress | None) -> tuple[pa.Table, tuple[Class, ...], LeftOut]:
        left_out = LeftOut()
        files = sorted(self._walk(left_out))
        good: list[ImageFile] = []
        headers: list[Header] = []
        tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
        with ThreadPoolExecutor(max_workers=min(16, cores() * 2)) as pool:
            for task, answers in zip(
                tasks, pool.map(lambda t: [_probe(self.root, f) for f in t], tasks), strict=True
            ):
                for file, answer in zip(task, answers, strict=True):
                    if isinstance(answer, Header):
                        good.append(file)
                        headers.append(answer)
                    else:
                        left_out.add(answer, file.file)
                if progress:
                    progress(len(task), len(files))
        broken = sum(n for reason, n in left_out.counts.items() if reason not in PASSED_OVER)
        if broken and self.broken == "error":
            raise DataError(f"{self.root}: {left_out}", hint="`broken: skip` counts them and goes on")
        require_rows(len(good), self.root, left_out)
        assert self.classes is not None
        wnids = {c.wnid for c in self.classes if c.wnid}
        return _table(good, headers, self.folders, wnids), self.classes, left_out


def _folders(path: str) -> list[os.DirEntry]:
    return [entry for entry in _entries(path) if is_folder(entry)]


def _entries(path: str) -> list[os.DirEntry]:
    try:
        return sorted((e for e in os.scandir(path) if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be listed ({error.strerror})", hint="check its permissions"
        ) from error


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _status(entry: os.DirEntry) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:
        return None


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python decodes other bytes to surrogates
        return False
    return True


def _probe(root: str, image: ImageFile) -> Header | str:
    """Return the header of an image, or the reason why it has none."""
    try:
        handle = os.open(f"{root}/{image.file}", os.O_RDONLY)
        try:
            try:
                return probe(os.read(handle, HEADER_BYTES))
            except NeedMore:
                return probe(os.pread(handle, image.size, 0))
        finally:
            os.close(handle)
    except NeedMore:
        return "damaged header"
    except BadImage as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _table(files: list[ImageFile], headers: list[Header], folders: list[str], wnids: set[str]) -> pa.Table:
    import pyarrow as pa

    label = {name: i for i, name in enumerate(folders)}
    columns = {
        "key": pa.array([make_key(os.path.splitext(f.file)[0]) for f in files], pa.string()),
        "file": pa.array([f.file for f in files], pa.string()),
        "offset": pa.array([0] * len(files), pa.int64()),
        "size": pa.array([f.size for f in files], pa.int64()),
        "ext": pa.array([h.ext for h in headers], pa.string()),
        "width": pa.array([h.width for h in headers], pa.int32()),
        "height": pa.array([h.height for h in headers], pa.int32()),
        "label": pa.array([None if f.folder is None else label[f.folder] for f in files], pa.int32()),
        "caption": pa.nulls(len(files), pa.string()),
        "split": pa.array([f.split for f in files], pa.string()),
    }
    if wnids:
        columns["wnid"] = pa.array([f.folder if f.folder in wnids else None for f in files], pa.string())
    return pa.table(columns)
