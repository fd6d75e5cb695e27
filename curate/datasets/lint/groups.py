"""The samples of many tars as a table, to find those that share a key; it goes to disk where it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb

from curate.io.image_headers import EXTENSIONS
from curate.io.tars.findings import KEPT, Report, plain, shown
from curate.rows.sql import text

MEMORY = "1GB"  # of DuckDB, before it goes to disk
ROWS_PER_INSERT = 50_000


class Groups:
    """Samples as a reader meets them: runs of members with one key.

    Args:
        work: a folder for what does not fit into memory.
    """

    def __init__(self, work: str) -> None:
        self._con = duckdb.connect()
        self._con.execute(f"SET temp_directory = {text(work)}")
        self._con.execute(f"SET memory_limit = '{MEMORY}'")
        self._con.execute(
            "CREATE TEMP TABLE groups (shard INTEGER, number BIGINT, key VARCHAR, extensions VARCHAR, alike BOOLEAN, "
            "cut BOOLEAN)"
        )
        self._rows: list[tuple[int, int, str, str, bool, bool]] = []

    def __enter__(self) -> Groups:
        return self

    def __exit__(self, *_: object) -> None:
        self._con.close()

    def add(self, shard: int, number: int, key: str, extensions: Sequence[str]) -> None:
        """Take the next sample of a shard, with the extensions of its members."""
        last = [e.rpartition(".")[2] for e in extensions]
        alike = len(set(last)) < len(last)  # `a.jpg` and `b.jpg` of x: was it x.a and x.b?
        cut = not EXTENSIONS.isdisjoint(last) and EXTENSIONS.isdisjoint(extensions)  # has an image, to nobody
        together = "\n".join(sorted(map(plain, extensions)))  # a plain text has no line's end
        self._rows.append((shard, number, plain(key), together, alike, cut))
        if len(self._rows) >= ROWS_PER_INSERT:
            self._insert()

    def _insert(self) -> None:
        import pyarrow as pa

        if self._rows:
            names = ["shard", "number", "key", "extensions", "alike", "cut"]
            columns = [pa.array(values) for values in zip(*self._rows, strict=True)]
            self._con.register("more", pa.table(columns, names))
            self._con.execute("INSERT INTO groups FROM more")
            self._con.unregister("more")
            self._rows = []

    def report(self, report: Report, tars: Sequence[str]) -> None:
        """Find samples that were merged or split, keys that stand twice, and sets of extensions unlike the rest.

        Args:
            tars: the names of the shards, by number.
        """
        self._insert()
        self._merged(report, tars)
        self._twice(report, tars)
        self._mixed(report, tars)

    def _all(self, query: str) -> list[tuple[Any, ...]]:
        return self._con.execute(query).fetchall()

    def _merged(self, report: Report, tars: Sequence[str]) -> None:
        """Tell names that were cut at their first dot from fields that are meant to have one.

        A field such as `left.jpg` is in every sample of its shard; what is left of a name is in one.
        """
        for kind, which in (("merged samples", "alike"), ("cut name", "cut AND NOT alike")):
            chosen = (
                f"FROM groups WHERE {which} AND shard IN (SELECT shard FROM groups GROUP BY shard "
                "HAVING count(*) = 1 OR count(DISTINCT extensions) > 1)"
            )
            for shard, key, extensions in self._all(
                f"SELECT shard, key, extensions {chosen} ORDER BY shard, number LIMIT {KEPT}"
            ):
                members = shown(", ".join(f"{key}.{e}" for e in extensions.split("\n")))
                what = "one sample" if kind == "merged samples" else "a sample without an image"
                report.add(kind, tars[shard], key, f"{what} to a reader, cut at the first dot: {members}")
            [(count,)] = self._all(f"SELECT count(*) {chosen}")
            report.raise_to(kind, count)

    def _twice(self, report: Report, tars: Sequence[str]) -> None:
        self._con.execute(
            "CREATE TEMP TABLE twice AS SELECT * FROM groups SEMI JOIN "
            "(SELECT key FROM groups GROUP BY key HAVING count(*) > 1) USING (key)"
        )
        self._con.execute(
            "CREATE TEMP TABLE pairs AS SELECT *, first(shard) OVER w AS before, first(extensions) OVER w AS had, "
            "row_number() OVER w AS nth FROM twice WINDOW w AS (PARTITION BY key ORDER BY shard, number)"
        )
        self._con.execute(
            "CREATE TEMP TABLE kinds AS SELECT *, shard = before AND NOT list_has_any("
            "string_split(extensions, chr(10)), string_split(had, chr(10))) AS split FROM pairs WHERE nth > 1"
        )
        for split, kind in ((True, "split sample"), (False, "duplicate key")):
            for shard, key, before, extensions, had in self._all(
                f"SELECT shard, key, before, extensions, had FROM kinds WHERE split = {split} "
                f"ORDER BY shard, number LIMIT {KEPT}"
            ):
                if split:
                    what = f"its members do not stand together: {_told(had)}, then others, then {_told(extensions)}"
                else:
                    what = (
                        "stands twice in this shard" if shard == before else f"stands in {tars[before]} too"
                    )
                report.add(kind, tars[shard], key, what)
            [(count,)] = self._all(f"SELECT count(*) FROM kinds WHERE split = {split}")
            report.raise_to(kind, count)

    def _mixed(self, report: Report, tars: Sequence[str]) -> None:
        found = self._all(
            "SELECT extensions, count(*) AS n, arg_min((shard, key), (shard, number)) FROM groups "
            f"GROUP BY 1 ORDER BY n DESC, 1 LIMIT {KEPT + 1}"
        )
        for extensions, count, (shard, key) in found[1:]:
            most = f"{found[0][1]:,} have {_told(found[0][0])}"
            what = f"{count:,} samples have {_told(extensions)}, where {most}"
            report.add("mixed extensions", tars[shard], key, what)


def _told(extensions: str) -> str:
    return shown(extensions.replace("\n", " "))
