"""What lies between two datasets: samples added, dropped, relabelled, re-captioned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import duckdb
import pyarrow as pa

from curate.datasets.dataset import INFO, Dataset, open_dataset
from curate.errors import RecipeError
from curate.io.paths import AnyPath, RemotePath, as_path

EXAMPLES = 3


@dataclass(frozen=True)
class Diff:
    """How B differs from A. Samples are the same when their keys are; classes when their names are.

    Args:
        kept: samples in both.
        added, dropped: samples only in B, only in A; examples beside.
        relabelled, recaptioned: of those in both.
        other_resize: whether their shards hold images made smaller in another way; their digests differ then.
    """

    a: str
    b: str
    rows_a: int
    rows_b: int
    kept: int
    added: int
    dropped: int
    relabelled: int
    recaptioned: int
    examples: dict[str, list[str]]
    other_resize: bool

    @property
    def relation(self) -> str:
        """ "=", "≅" (the same samples, other labels or captions), "⊂", "⊃", "∥" (nothing shared) or "≬" (some)."""
        if not self.added and not self.dropped:
            return "≅" if self.relabelled or self.recaptioned else "="
        if not self.dropped:
            return "⊂"
        if not self.added:
            return "⊃"
        return "≬" if self.kept else "∥"


def diff(a: str | AnyPath, b: str | AnyPath) -> Diff:
    """Compare two datasets by key.

    Raises:
        RecipeError: one of them is no dataset.
        DataError: a manifest cannot be read.
    """
    first, second = open_dataset(a), open_dataset(b)
    with duckdb.connect() as con:
        con.register("a", _rows(first))
        con.register("b", _rows(second))
        con.execute(
            "CREATE TABLE both_sides AS SELECT coalesce(a.key, b.key) AS key, a.key IS NULL AS added, "
            "b.key IS NULL AS dropped, a.name IS DISTINCT FROM b.name AS relabelled, "
            "a.caption IS DISTINCT FROM b.caption AS recaptioned, a.name AS old, b.name AS new "
            "FROM a FULL JOIN b ON a.key = b.key"
        )
        stays = "NOT added AND NOT dropped"
        conditions = {"added": "added", "dropped": "dropped"}
        conditions |= {what: f"{stays} AND {what}" for what in ("relabelled", "recaptioned")}
        counts = {what: _count(con, condition) for what, condition in conditions.items()}
        examples = {what: _examples(con, what, condition) for what, condition in conditions.items()}
        kept = _count(con, stays)
    resized = [side.info.recipe.get("resize") for side in (first, second)]
    return Diff(
        first.name, second.name, len(first), len(second), kept, **counts,
        examples=examples, other_resize=resized[0] != resized[1],
    )  # fmt: skip


def chain(paths: Sequence[str | AnyPath]) -> list[Diff]:
    """Compare each dataset with the next; of one folder that holds a family of them, from the smallest to the largest.

    Raises:
        RecipeError: there are fewer than two datasets.
    """
    if len(paths) == 1 and not (as_path(paths[0]) / INFO).exists():
        found = [open_dataset(home) for home in _family(as_path(paths[0]))]
        paths = [d.path for d in sorted(found, key=lambda d: (len(d), _natural(d.name)))]
    if len(paths) < 2:
        raise RecipeError(
            "diff takes two datasets or more, or a folder that holds a family",
            hint="`curate diff A B`, or the --out of a recipe with a matrix",
        )
    return [diff(a, b) for a, b in pairwise(paths)]


def _family(folder: AnyPath) -> list[AnyPath]:
    if isinstance(folder, RemotePath):
        homes = (name.removesuffix(f"/{INFO}") for name in folder.sizes() if name.endswith(f"/{INFO}"))
        return [folder / home for home in homes if "/" not in home]
    return [info.parent for info in folder.glob(f"*/{INFO}")]


def _natural(name: str) -> list[tuple[float, str]]:
    """Return what sorts "a-9" before "a-10"."""
    return [(float(n) if n else -1.0, w) for n, w in re.findall(r"(\d+(?:\.\d+)?)|(\D+)", name)]


def _rows(dataset: Dataset) -> pa.Table:
    table = dataset.table(["key", "label", "caption"])
    names = pa.array([c.name for c in dataset.classes], pa.string())
    labels = table["label"].combine_chunks() if table.num_rows else pa.array([], pa.int32())
    return pa.table({"key": table["key"], "name": names.take(labels), "caption": table["caption"]})


def _count(con: Any, condition: str) -> int:
    return con.execute(f"SELECT count(*) FROM both_sides WHERE {condition}").fetchall()[0][0]


def _examples(con: Any, what: str, condition: str) -> list[str]:
    shown = (
        "key || ': ' || coalesce(old, 'none') || ' → ' || coalesce(new, 'none')"
        if what == "relabelled"
        else "key"
    )
    query = f"SELECT {shown} FROM both_sides WHERE {condition} ORDER BY key LIMIT {EXAMPLES}"
    return [row[0] for row in con.execute(query).fetchall()]
