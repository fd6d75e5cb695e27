"""WebDataset tars of any origin: one row a sample, which points at the bytes of its image inside the tar."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from curate.errors import DataError, RecipeError, printable
from curate.io.stores import filesystem, is_remote
from curate.io.tars.fields import is_unicode
from curate.io.tars.scan import find_tars
from curate.rows.manifest import CORE, Class
from curate.rows.relation import columns_of
from curate.rows.sql import parquet
from curate.sources import Index, Progress, Source
from curate.sources._index_cache import LeftOut, cached, make_key, require_rows
from curate.sources.shards.column_types import cast, declared_types
from curate.sources.shards.fields import side_columns, side_kinds
from curate.sources.shards.tars import peek, read_tar

if TYPE_CHECKING:
    import pyarrow as pa

Duplicates = Literal["error", "prefix", "first"]


def shards(*, path: str | list[str], duplicates: Duplicates = "error") -> Source:
    """Take the samples of WebDataset tars.

    Members of a tar that share a name up to the first dot are one sample, even if they are apart: an image,
    `.cls` (a class number or name), `.txt` (the caption) and `.json` (other columns, in lower case). `captions` is a
    list of texts; other lists and objects stay JSON text, but in shards of a dataset, whose columns have the types
    that it says. Without class names, the name of a class is its number, or its wnid if a column `wnid` gives one
    for each. Samples that give no row, and fields that cannot be read, are counted by their reason.

    Args:
        path: a tar, a folder of tars, a pattern such as `/pool/{000..019}.tar` or `*.tar`, or a list of these;
            local or a URL. Compressed tars are refused, because they cannot be read in the middle.
        duplicates: what to do with a key that is in two tars: refuse, put each tar's name (its path below the
            folder of all) before its keys, or keep the row of the tar that is first by name and count the others.
    """
    return ShardsSource([path] if isinstance(path, str) else path, duplicates)


class ShardsSource(Source):
    """The source that `shards` opens."""

    def __init__(self, paths: list[str], duplicates: Duplicates) -> None:
        self.tars = sorted({tar for path in paths for tar in find_tars(path)})
        self.duplicates: Duplicates = duplicates
        if not self.tars:
            raise RecipeError(
                f"no tars at {', '.join(paths)}", hint="give a .tar, a folder of them or a pattern"
            )
        _refuse_names(self.tars)
        self.root = _common(self.tars)
        self.types = declared_types(self.tars)
        kinds = side_kinds(peek(self.tars[0]))
        self.columns = dict(CORE) | kinds | {c: t for c, t in self.types.items() if c in kinds}

    def fingerprint(self) -> str:
        """Return name, size and time of each tar; for a remote tar, what its store says of it."""
        if is_remote(self.root):
            files, _ = filesystem(self.root)
            return json.dumps([[t, files.size(t), str(files.ukey(t))] for t in self.tars])
        return json.dumps([[t, os.stat(t).st_size, os.stat(t).st_mtime_ns] for t in self.tars])

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Read the headers of all members, the side fields, and each image's first bytes."""
        identity = {"tars": self.tars, "duplicates": self.duplicates, "types": self.types}
        index = cached("shards", identity, fingerprint, lambda: self._read(progress))
        with duckdb.connect() as con:  # the first samples need not have all columns, nor their widest types
            con.execute(f"CREATE TEMP VIEW indexed AS FROM {parquet(*index.files)}")
            self.columns = columns_of(con, "indexed")
        return index

    def _read(self, progress: Progress | None) -> tuple[pa.Table, tuple[Class, ...], LeftOut]:
        left_out = LeftOut()
        rows: list[dict[str, Any]] = []
        sides: list[dict[str, Any]] = []
        keys = _Keys(self.duplicates, left_out)
        apart = 0
        with ThreadPoolExecutor(max_workers=4) as pool:
            for tar, read in zip(self.tars, pool.map(read_tar, self.tars), strict=True):
                left_out.take(read.left_out.counts, read.left_out.names)
                apart += read.apart
                relative = tar[len(self.root) :].lstrip("/")
                before = f"{relative[: -len('.tar')]}/" if self.duplicates == "prefix" else ""
                for name, row, side in read.rows:
                    key = make_key(before + name.removeprefix("./").lstrip("/"))
                    if keys.take(key, relative):
                        row["key"], row["file"] = key, relative
                        rows.append(row)
                        sides.append(side)
                if progress:
                    progress(1, len(self.tars))
        keys.refuse()
        if apart:
            left_out.notes.append(f"{apart:,} samples put together whose members stand apart in their tar")
        require_rows(len(rows), self.tars[0] if len(self.tars) == 1 else self.root, left_out)
        return _assemble(rows, sides, left_out, self.types)


def _refuse_names(tars: list[str]) -> None:
    """Refuse tars that have no byte ranges, or a name that no manifest can hold."""
    packed = [t for t in tars if not t.lower().endswith(".tar")]
    if packed:
        more = f" (and {len(packed) - 1:,} more)" if len(packed) > 1 else ""
        raise RecipeError(
            f"{printable(packed[0])}: not a plain .tar{more}",
            hint="a compressed tar has no byte ranges: unpack it; to leave it out, name the others: `*.tar`",
        )
    if odd := [t for t in tars if not is_unicode(t)]:
        raise RecipeError(f"{printable(odd[0])}: its name is not UTF-8", hint="rename it, or its folder")


def _common(tars: list[str]) -> str:
    """Return the deepest folder above all tars."""
    folders = [tar.rpartition("/")[0].split("/") for tar in tars]
    shared = [
        parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    ]
    return "/".join(shared) or "/"


class _Keys:
    """The keys so far, and what becomes of one that comes again."""

    def __init__(self, duplicates: Duplicates, left_out: LeftOut) -> None:
        self.duplicates, self.left_out = duplicates, left_out
        self.files: dict[str, str] = {}  # key → its tar
        self.again: list[tuple[str, str, str]] = []

    def take(self, key: str, file: str) -> bool:
        """Whether a sample's row is to be kept."""
        if key not in self.files:
            self.files[key] = file
            return True
        if self.duplicates == "first":
            self.left_out.add("samples whose key stood before", f"{file}: {key}")
        else:
            self.again.append((key, self.files[key], file))
        return False

    def refuse(self) -> None:
        """Refuse keys that stand for two samples.

        Raises:
            DataError: there are some.
        """
        if not self.again:
            return
        key, first, second = min(self.again)
        alone = first == second
        hint = "`duplicates: first` keeps the first sample of each key and counts the rest"
        if not alone:
            hint = f"`duplicates: prefix` puts each tar's name before its keys; {hint}"
        raise DataError(
            f"{len({k for k, _, _ in self.again}):,} keys stand for two samples or more; {key!r} is "
            + (f"twice in {first}" if alone else f"{first} and {second}"),
            hint=hint,
        )


def _assemble(
    rows: list[dict[str, Any]], sides: list[dict[str, Any]], left_out: LeftOut, types: dict[str, str]
) -> tuple[pa.Table, tuple[Class, ...], LeftOut]:
    import pyarrow as pa

    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    told, classes, notes = side_columns(sides, types)
    table, lost = cast(pa.table(columns | told), types)
    left_out.notes += notes
    for column, number in lost.items():
        left_out.add(f".json whose {column} is no {types[column]}", "such rows have none", number)
    return table, classes, left_out
