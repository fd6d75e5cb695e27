"""Several sources as one."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

import duckdb

from curate.errors import RecipeError
from curate.io.stores import is_remote
from curate.rows.manifest import CORE, KEY_LIMIT, Class, digest
from curate.rows.sql import quoted, text
from curate.sources import Index, Progress, Source
from curate.sources._index_cache import LeftOut, cached, sorted_ids

_PART = re.compile(r"[A-Za-z0-9_-]{1,40}").fullmatch
SOURCE = "source"


def union(*, parts: dict[str, Any], duplicates: Literal["prefix", "error", "first"] = "prefix") -> Source:
    """Take the rows of several sources; the column `source` says which each is from.

    Classes of the same wnid are one class, and so are classes without one that have the same name. A name
    never matches a wnid: the folder `crane` may be the bird or the machine. The ledger names such pairs,
    and `relabel: {map: {crane: n02012849}, others: keep}` makes one class of them. Labels follow the order of the ids,
    and of numbers where the parts' do. A column that a source lacks is NULL in its rows. `mix` draws stated amounts of
    each; `dedup` finds what two have in common.

    Args:
        parts: name → source, as `source:` would have it: `{web: {dataset: ../laion}, own: {folder: /photos}}`.
        duplicates: what to do with a key that two have: put the part's name before every key, refuse, or keep the
            row of the part that is named first.
    """
    for name in parts:
        if not _PART(name):
            raise RecipeError(f"part {name!r}: up to 40 letters, digits, `_` and `-`")
    if len(parts) < 2:
        raise RecipeError(f"a union takes two sources or more, got {len(parts)}")
    return UnionSource(parts, duplicates)


class UnionSource(Source):
    """The source that `union` opens."""

    def __init__(self, parts: dict[str, Source], duplicates: str) -> None:
        self.parts, self.duplicates = parts, duplicates
        local = [os.path.abspath(p.root) for p in parts.values() if not is_remote(p.root)]
        self.root = os.path.commonpath(local) if local else next(iter(parts.values())).root
        self.columns = _columns(parts) | {SOURCE: "VARCHAR"}
        known = [p.classes for p in parts.values() if p.classes is not None]
        self.classes = _classes(known)[0] if len(known) == len(parts) else None
        counts = [p.rows for p in parts.values() if p.rows is not None]
        self.rows = sum(counts) if len(counts) == len(parts) and duplicates != "first" else None
        self.has_bytes = all(p.has_bytes for p in parts.values())

    @property
    def homes(self) -> list[str]:
        """The paths of the parts."""
        return [home for part in self.parts.values() for home in part.homes]

    @property
    def outside(self) -> list[str]:
        """The outside images of the parts."""
        return [path for part in self.parts.values() for path in part.outside]

    def fingerprint(self) -> str:
        """Return the digest of the fingerprints of the parts."""
        return digest([[name, part.fingerprint()] for name, part in self.parts.items()])

    def index(self, *, fingerprint: str, progress: Progress | None = None) -> Index:
        """Index the parts and join their rows; if a part is a table, each query reads the rows from the files."""
        roots = {name: [type(p).__name__, os.path.abspath(p.root)] for name, p in self.parts.items()}
        identity = {"parts": roots, "duplicates": self.duplicates}
        if self.has_bytes:
            return cached("union", identity, fingerprint, lambda: self._joined(self._indexes(progress)))
        indexes = self._indexes(progress)
        query, classes, left_out = self._joined(indexes)
        return Index(
            classes,
            digest(["union", self.duplicates, [[name, i.digest] for name, i in indexes.items()]]),
            self._count(query, indexes),
            query,
            tuple(f for i in indexes.values() for f in i.files),
            streamed=True,
            notes=tuple(left_out.notes),
            left_out=left_out.names,
            counts=left_out.counts,
        )

    def _count(self, query: str, indexes: dict[str, Index]) -> int:
        if self.duplicates != "first":
            return sum(i.rows for i in indexes.values())
        with duckdb.connect() as con:
            return con.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0]

    def _indexes(self, progress: Progress | None) -> dict[str, Index]:
        return {n: p.index(fingerprint=p.fingerprint(), progress=progress) for n, p in self.parts.items()}

    def _joined(self, indexes: dict[str, Index]) -> tuple[str, tuple[Class, ...], LeftOut]:
        """Return SQL for the rows of all parts, their classes, and what was left out."""
        left_out = LeftOut()
        for name, index in indexes.items():
            left_out.take(index.counts, index.left_out)
            left_out.notes += [f"{name}: {note}" for note in index.notes]
        classes, labels = _classes([index.classes for index in indexes.values()])
        left_out.notes += _apart(classes)
        selects = [
            self._select(number, name, index, [labels[c.id] for c in index.classes])
            for number, (name, index) in enumerate(indexes.items())
        ]
        rows = " UNION ALL BY NAME ".join(selects)
        if self.duplicates == "first":
            rows = f"SELECT * FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY key ORDER BY _part_number) = 1"
        return f"SELECT * EXCLUDE (_part_number) FROM ({rows})", classes, left_out

    def _select(self, number: int, name: str, index: Index, labels: list[int]) -> str:
        part = self.parts[name]
        if is_remote(part.root):
            before = part.root.rstrip("/") + "/"
        else:
            below = os.path.relpath(os.path.abspath(part.root), self.root)
            before = "" if below == "." else below + "/"
        new = {
            "file": f"CASE WHEN file LIKE '%://%' THEN file ELSE {text(before)} || file END",
            "label": f"[{', '.join(map(str, labels))}][label + 1]::INTEGER" if labels else "NULL::INTEGER",
        }
        if self.duplicates == "prefix":
            long = f"left(key, {KEY_LIMIT - 80}) || '_h' || md5(key)"
            new["key"] = (
                f"{text(name + '/')} || CASE WHEN len(key) > {KEY_LIMIT - 41} THEN {long} ELSE key END"
            )
        chosen = ", ".join(f"{new.get(c, quoted(c))} AS {quoted(c)}" for c in part.columns if c != SOURCE)
        return f"SELECT {chosen}, {text(name)} AS {SOURCE}, {number} AS _part_number FROM ({index.query})"


def _columns(parts: dict[str, Source]) -> dict[str, str]:
    """Return the columns of all parts; refuse a column with two types."""
    columns: dict[str, str] = dict(CORE)
    first: dict[str, str] = {}
    for name, part in parts.items():
        for column, kind in part.columns.items():
            if columns.setdefault(column, kind) != kind:
                raise RecipeError(
                    f"column {column!r} is {columns[column]} in {first.get(column, 'the core')} and {kind} in {name}",
                    hint="build one of them first and change or drop the column there",
                )
            first.setdefault(column, name)
    return columns


def _classes(lists: list[tuple[Class, ...]]) -> tuple[tuple[Class, ...], dict[str, int]]:
    """Return the classes of all parts, each id once, and id → label.

    They are in the order of their ids, or in that of the lists if all lists are the same.
    """
    by_id: dict[str, Class] = {}
    for cls in (c for classes in lists for c in classes):
        first = by_id.setdefault(cls.id, cls)
        fine = tuple(dict.fromkeys([*first.fine, *cls.fine]))
        by_id[cls.id] = Class(first.name, first.wnid, fine)
    same = all(classes == lists[0] for classes in lists)
    numbers = all([c.id for c in classes] == sorted_ids(c.id for c in classes) for classes in lists)
    order = [c.id for c in lists[0]] if same else sorted_ids(by_id) if numbers else sorted(by_id)
    taken: set[str] = set()
    named = []
    for c in (by_id[i] for i in order):
        name = c.name
        while name in taken:  # a folder that has the WordNet name of another class
            name += f" ({c.id})"
        taken.add(name)
        named.append(Class(name, c.wnid, c.fine))
    return tuple(named), {old: label for label, old in enumerate(order)}


def _apart(classes: tuple[Class, ...]) -> list[str]:
    """Return a note about pairs of classes with one name, of which only one has a wnid; they stay two classes."""
    from curate.wordnet import unique_names

    wnids = [c.wnid for c in classes if c.wnid is not None]
    wnid_of: dict[str, str] = {}
    for wnid in wnids:
        wnid_of.setdefault(_plain(unique_names([wnid])[0]), wnid)
    bare = [
        c.name for c in classes if c.wnid is None
    ]  # maybe with its name again in brackets, after one that is taken
    pairs = [
        (n, wnid_of[_plain(n.partition(" (")[0])]) for n in bare if _plain(n.partition(" (")[0]) in wnid_of
    ]
    if not pairs:
        return []
    examples = ", ".join(f"{name!r} and {wnid}" for name, wnid in pairs[:3]) + (
        ", …" if len(pairs) > 3 else ""
    )
    name, wnid = pairs[0]
    return [
        f"{len(pairs):,} classes are called as WordNet calls another, and stay apart from it ({examples}); "
        f"`relabel: {{map: {{{name!r}: {wnid}}}, others: keep}}` makes one of two"
    ]


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
