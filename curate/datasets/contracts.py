"""The data contract of docs/data.md, held against what is read: anybody can write a dataset, and seal it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from curate.errors import DataError, first_line
from curate.io import stores
from curate.io.files import cache_folder
from curate.io.image_headers import HEADER_BYTES, BadImage, NeedMore, probe
from curate.io.stores import is_remote, url_fault
from curate.rows.manifest import CORE, KEY_LIMIT
from curate.rows.relation import columns_of
from curate.rows.sql import parquet, text

if TYPE_CHECKING:
    from curate.datasets.dataset import Dataset, DatasetInfo, ShardRecord

VERSION = 1  # of the checks; what held under another is looked at again
KINDS = ("jpg", "png", "gif", "webp", "bmp", "tiff", "ppm")  # of images: what `ext` may be
KEY = "[A-Za-z0-9_-]([A-Za-z0-9_/-]*[A-Za-z0-9_-])?"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}").fullmatch
_DIGEST = re.compile("sha256:[0-9a-f]{64}").fullmatch
_MOST = 1 << 62  # bytes: of a place or a size; two of them still fit into 64 bits
PLACES_SHOWN = 10
_LABELS = ("label", "clean_label")


def info_fault(info: DatasetInfo) -> str | None:
    """Return what `dataset.json` may not say: names that lead elsewhere, classes out of order; else None."""
    if not _NAME(info.name):
        return f"name {info.name!r}: letters, digits, `.`, `_`, `-`"
    if not _DIGEST(info.digest):
        return f"digest {info.digest!r}"
    if "\0" in info.root or (is_remote(info.root) and url_fault(info.root)):
        return f"root {info.root!r}: {url_fault(info.root) or 'no path'}"
    for number, shard in enumerate(info.shards or []):
        if shard.file != f"shards/{number:06d}.tar":
            return f"shard {number} is called {shard.file!r}"
        if shard.samples < 0 or shard.bytes < 0:
            return f"shard {number} has {shard.samples} samples, {shard.bytes} bytes"
    for number, record in enumerate(info.classes):
        if record.index != number:
            return f"class {record.name!r} has index {record.index} and stands in place {number}"
    names = {record.name for record in info.classes}
    if len(names) < len(info.classes) or "" in names:
        return "its classes have no names of their own"
    return None


def faults(dataset: Dataset) -> list[str]:
    """Return what is not as docs/data.md has it, of a dataset's rows and of where its shards have their images.

    Raises:
        DataError: they cannot be read.
    """
    files = {"rows": "manifest.parquet", **({"places": "shards/index.parquet"} if dataset.sharded else {})}
    try:
        with duckdb.connect() as con:
            for name, file in files.items():
                if isinstance(dataset.path, Path):
                    con.execute(f"CREATE TEMP VIEW {name} AS FROM {parquet(dataset.path / file)}")
                else:
                    con.register(name, dataset.read_parquet(file))
            wrong = row_faults(con, "rows", dataset.info.columns, len(dataset.info.classes))
            if dataset.sharded and not wrong:
                wrong = place_faults(con, "places", dataset.info.shards or [])
            return wrong
    except (OSError, ValueError, duckdb.Error) as error:
        hint = f"`curate verify {dataset.path}` says what is wrong"
        where = dataset.path / files["rows"]
        raise DataError(f"{where}: cannot be read ({first_line(error)})", hint=hint) from error


def row_faults(con: Any, rows: str, columns: Mapping[str, str], classes: int) -> list[str]:
    """Return what is wrong with a manifest's rows, each fault with its count and an example; takes 0.4 s a million.

    Args:
        con: a DuckDB connection.
        rows: what to select from.
        columns: name → DuckDB type, as `dataset.json` has them.
        classes: how many there are.
    """
    kinds = columns_of(con, f"(SELECT * FROM {rows})")
    if faults := list(_column_faults(kinds, columns)):
        return faults
    rules = list(_rules(kinds, classes))
    counts = ", ".join(f"count(*) FILTER ({broken})" for _, broken in rules)
    # The count of keys that differ is quick; which stands twice is asked only where one does.
    [(total, distinct, *counted)] = con.execute(
        f"SELECT count(*), count(DISTINCT key), {counts} FROM {rows}"
    ).fetchall()
    wrong = []
    for (what, broken), count in zip(rules, counted, strict=True):
        if count:
            wrong.append(f"{count:,} rows {what} (such as {_example(con, rows, broken)})")
    if not wrong and distinct < total:
        twice = f"key IN (SELECT key FROM {rows} GROUP BY key HAVING count(*) > 1)"
        wrong.append(f"{total - distinct:,} keys stand twice (such as {_example(con, rows, twice)})")
    return wrong


def _column_faults(kinds: Mapping[str, str], columns: Mapping[str, str]) -> Iterator[str]:
    for name, kind in CORE.items():
        if kinds.get(name) != kind:
            yield f"its column {name!r} is {kinds.get(name, 'not there')}, not {kind}"
    if odd := sorted(kinds.keys() ^ columns.keys()):
        yield f"its columns are not those of dataset.json (such as {odd[0]!r})"
    for name in _LABELS[1:]:
        if kinds.get(name, "INTEGER") != "INTEGER":
            yield f"its column {name!r} is {kinds[name]}, not INTEGER"


def _rules(columns: Mapping[str, str], classes: int) -> Iterator[tuple[str, str]]:
    """Yield what rows do that break a rule, in words, and the SQL that is true of them."""
    protocols = "|".join(sorted(stores.STORES | stores.WEB))
    url = f"regexp_full_match(file, '({protocols})://[^\\x00-\\x1f\\x7f]*') AND NOT contains(file, '::')"
    outside = "file = '' OR starts_with(file, '/') OR contains(file, chr(0)) OR "
    outside += "(contains(file, '..') AND contains('/' || file || '/', '/../'))"
    yield (
        f"have a key that is none: up to {KEY_LIMIT} of A-Z a-z 0-9 _ - and / between them",
        f"key IS NULL OR len(key) > {KEY_LIMIT} OR NOT regexp_full_match(key, {text(KEY)})",
    )
    yield "have a `file` that leads out of the root", f"NOT contains(file, '://') AND ({outside})"
    yield "have a `file` of a URL that is never opened", f"contains(file, '://') AND NOT ({url})"
    kinds = ", ".join(map(text, KINDS))
    yield (
        f"have an `ext` that is none of {', '.join(KINDS)}",
        f"ext NOT IN ({kinds}) OR (ext IS NULL AND file IS NOT NULL)",
    )
    sizes = " OR ".join(f'"{c}" NOT BETWEEN 0 AND {_MOST}' for c in ("offset", "size", "width", "height"))
    yield "have an offset or a size that is none", f"file IS NOT NULL AND ({sizes})"
    for name in _LABELS:
        if name in columns:
            yield f"have a `{name}` beyond the {classes:,} classes", f"{name} NOT BETWEEN 0 AND {classes - 1}"


def _example(con: Any, rows: str, broken: str) -> str:
    [(key, file)] = con.execute(
        f"SELECT left(key, 80), left(file, 80) FROM {rows} WHERE {broken} ORDER BY key LIMIT 1"
    ).fetchall()
    return repr(key) if file is None else f"{key!r} in {file!r}"


def place_faults(con: Any, rows: str, shards: Sequence[ShardRecord]) -> list[str]:
    """Return what is wrong with the rows of `shards/index.parquet`, which say where the images are: in which shard.

    Args:
        con: a DuckDB connection.
        rows: what to select from.
        shards: the dataset's, in order.
    """
    kinds = columns_of(con, f"(SELECT * FROM {rows})")
    wanted = {c: CORE[c] for c in CORE if c in ("key", "file", "offset", "size") or c in kinds}
    if odd := [c for c, kind in wanted.items() if kinds.get(c) != kind] + sorted(
        kinds.keys() - wanted.keys()
    ):
        return [f"shards/index.parquet: its column {odd[0]!r} is {kinds.get(odd[0], 'not there')}"]
    names = ", ".join(text(shard.file) for shard in shards) or "''"
    broken = f'file IS NULL OR file NOT IN ({names}) OR "offset" IS NULL OR size IS NULL'
    broken += f' OR "offset" NOT BETWEEN 512 AND {_MOST} OR size NOT BETWEEN 0 AND {_MOST}'
    if "ext" in kinds:
        broken += f" OR ext IS NULL OR ext NOT IN ({', '.join(map(text, KINDS))})"
    [(count,)] = con.execute(f"SELECT count(*) FROM {rows} WHERE {broken}").fetchall()
    if count:
        example = _example(con, rows, broken)
        return [f"shards/index.parquet: {count:,} rows are of no image in a shard (such as {example})"]
    return []


def image_fault(data: bytes | memoryview, ext: str) -> str | None:
    """Return why bytes are not an image of a kind, by their header; None where they are. What is none is not copied.

    Args:
        data: all of the bytes.
        ext: the kind, as the manifest has it.
    """
    try:
        try:
            kind = probe(bytes(data[:HEADER_BYTES])).ext
        except NeedMore:
            kind = probe(bytes(data)).ext
    except NeedMore:
        return "damaged header"
    except BadImage as error:
        return str(error)
    return None if kind == ext else f"its bytes are {kind}, the manifest says {ext}"


def refuse_no_image(data: bytes | memoryview, ext: str, file: str) -> None:
    """Refuse to copy what is not an image of its kind: a manifest of anybody's may point at any file.

    Raises:
        DataError: it is none.
    """
    if fault := image_fault(data, ext):
        hint = "the file changed, or is none of this dataset's images; nothing of it was copied"
        raise DataError(f"{file}: not the image that the manifest says ({fault})", hint=hint)


def outside(dataset: Dataset) -> list[str]:
    """Return in words where images lie outside of a dataset's own folder, links followed; nothing where none does.

    Who is sent a dataset is sent what it reads too: its rows may point to any folder of this machine.
    """
    root, places = dataset.byte_root, list[str]()
    if dataset.sharded:
        places = _links(dataset)
    elif is_remote(root) or is_remote(dataset.path):
        places = [] if f"{root}/".startswith(f"{dataset.path}/") else [root]
    elif not Path(root).is_relative_to(_home(dataset)):
        places = [root]
    else:
        places = _links(dataset)
    if not dataset.sharded:
        places += [store for store in _stores(dataset) if not f"{root}/".startswith(f"{store}/")]
    return [f"{dataset.path}: its images lie outside of its folder, in {place}" for place in places]


def _home(dataset: Dataset) -> Path:
    return Path(str(dataset.path)).resolve()


def _links(dataset: Dataset) -> list[str]:
    """Return where the links in a dataset's folder lead, of those that lead out of it."""
    if not isinstance(dataset.path, Path):
        return []
    home, targets, folders = _home(dataset), dict[str, None](), [str(dataset.path)]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if not Path(target).is_relative_to(home):
                    targets[target] = None
            elif entry.is_dir():
                folders.append(entry.path)
    examples = sorted(targets)[:PLACES_SHOWN]
    return examples + (
        [f"{len(targets) - len(examples):,} other places"] if len(targets) > len(examples) else []
    )


def _stores(dataset: Dataset) -> list[str]:
    """Return the stores and hosts that rows name by URLs of their own."""
    dataset.refuse_rows()
    import pyarrow.compute as pc

    files = pc.unique(dataset.table(["file"])["file"]).drop_null()
    urls = files.filter(pc.match_substring(files, "://")).to_pylist()
    return sorted({"/".join(url.split("/")[:3]) for url in urls})[:PLACES_SHOWN]


def remembered(dataset: Dataset) -> Path | None:
    """Return the file of the cache that is there once a dataset's rows held; None of one in a store.

    It goes by what `stat` says of the files, as the index of a source does.
    """
    if not isinstance(dataset.path, Path):
        return None
    files = ["manifest.parquet", *(["shards/index.parquet"] if dataset.sharded else [])]
    try:
        about = [(dataset.path / file).stat() for file in files]
    except OSError:
        return None
    state = [[a.st_dev, a.st_ino, a.st_size, a.st_mtime_ns, a.st_ctime_ns] for a in about]
    parts = [VERSION, str(dataset.path.resolve()), state, dataset.info.model_dump_json()]
    return cache_folder() / "checked" / hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def remember(file: Path) -> None:
    """Note that rows held; where the cache cannot be written they are looked at again."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
