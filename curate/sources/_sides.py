"""What `.cls`, `.txt` and `.json` beside an image in a tar say, as columns; anybody may have written them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from curate.manifests import CORE, Class
from curate.sources._indexes import class_list

if TYPE_CHECKING:
    import pyarrow as pa

SIDE_FIELDS = ("cls", "txt", "json")
# What a row of ours says in its JSON about where it came from; here it comes from the tar.
LOCATION = frozenset({"key", "file", "offset", "size", "ext", "width", "height"})
LABELS = ("label", "clean_label")
MAX_DIGITS = 6  # of a label that is a number
_TAKEN = frozenset({*LOCATION, *CORE, *LABELS})


def read_side(fields: Mapping[str, bytes]) -> dict[str, Any]:
    """Return label, caption and other columns of a sample; what cannot be read is passed over.

    Columns are in lower case, for SQL's names have none.
    """
    try:
        document = json.loads(fields.get("json", b"{}"))
    except (ValueError, RecursionError):
        document = {}  # the sample still has its image
    told = {_column(k): v for k, v in document.items()} if isinstance(document, dict) else {}
    if "txt" in fields:
        told["caption"] = fields["txt"].decode("utf-8", "replace")
    if "cls" in fields:
        told["label"] = fields["cls"].decode("utf-8", "replace").strip()
    texts = {k: _text(told[k]) for k in ("caption", "split", *LABELS) if told.get(k) not in (None, "")}
    others = {k: v for k, v in told.items() if k and v is not None and k not in _TAKEN}
    return others | texts


def side_kinds(sides: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns that samples have besides the core, and their DuckDB types."""
    kinds = {n: _kind([s.get(n) for s in sides]) for n in sorted({n for s in sides for n in s} - set(CORE))}
    return kinds | {name: "INTEGER" for name in LABELS if name in kinds}


def side_columns(sides: Sequence[Mapping[str, Any]]) -> tuple[dict[str, pa.Array], tuple[Class, ...]]:
    """Return label, caption, split and the columns besides the core, and the classes."""
    import pyarrow as pa

    labels, classes = _labels(sides)
    columns = {name: pa.array(labels[name], pa.int32()) for name in LABELS}
    columns |= {name: pa.array([s.get(name) for s in sides], pa.string()) for name in ("caption", "split")}
    arrow = {"BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "VARCHAR": pa.string()}
    kinds = side_kinds(sides)
    for name in kinds.keys() - columns.keys():
        values = [s.get(name) for s in sides]
        if kinds[name] == "VARCHAR":
            values = [None if v is None else _text(v) for v in values]
        if kinds[name] == "DOUBLE":
            values = [None if v is None else float(v) for v in values]
        columns[name] = pa.array(values, arrow[kinds[name]])
    if "clean_label" not in kinds:
        del columns["clean_label"]
    return columns, classes


@lru_cache(maxsize=1024)
def _column(name: str) -> str:
    return _text(name).lower()


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    # JSON can hold halves of a character
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _kind(values: Sequence[Any]) -> str:
    types = {type(v) for v in values if v is not None}
    if types == {bool}:
        return "BOOLEAN"
    if types <= {int, float} and all(-(2**63) <= v < 2**63 for v in values if type(v) is int):
        return "BIGINT" if types == {int} else "DOUBLE"
    return "VARCHAR"


def _labels(sides: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[int | None]], tuple[Class, ...]]:
    """Return both labels of each sample, and the classes: by number, by wnid where it is told, or by name."""
    words = {name: [side.get(name) for side in sides] for name in LABELS}
    found = {word for column in words.values() for word in column if word is not None}
    numbered = all(w.isascii() and w.isdigit() and len(w) <= MAX_DIGITS for w in found)
    ids = [str(i) for i in range(max(map(int, found), default=-1) + 1)] if numbered else sorted(found)
    index = {word: int(word) for word in found} if numbered else {word: i for i, word in enumerate(ids)}
    labels = {name: [None if w is None else index[w] for w in column] for name, column in words.items()}
    if numbered:
        wnids: dict[int | None, set[str]] = {}
        for label, side in zip(labels["label"], sides, strict=True):
            wnids.setdefault(label, set()).add(str(side.get("wnid")))
        wnids.pop(None, None)
        told = {label: next(iter(w)) for label, w in wnids.items() if len(w) == 1 and w != {"None"}}
        if len(told) == len(wnids) == len(set(told.values())):
            ids = [told.get(i, word) for i, word in enumerate(ids)]
    return labels, class_list(ids)
