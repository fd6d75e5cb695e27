"""Labels, captions and columns of the samples of tars, from their `.cls`, `.txt` and `.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from curate.io.tars.fields import Nested
from curate.rows.manifest import CORE, Class
from curate.sources._index_cache import class_list

if TYPE_CHECKING:
    import pyarrow as pa

# Columns that the JSON of our own shards has of the row's first location; now the tar tells them.
LOCATION = frozenset({"key", "file", "offset", "size", "ext", "width", "height"})
LABELS = ("label", "clean_label")
CAPTIONS = "captions"
MAX_DIGITS = 6  # of a label that is a number
MAX_EXACT = 1 << 53  # up to here a DOUBLE holds every integer
_TAKEN = frozenset({*LOCATION, *CORE, *LABELS, CAPTIONS})
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?").fullmatch
_WORDS = {bool: "booleans", int: "numbers", float: "numbers", str: "texts", Nested: "lists or objects"}

Fault = Callable[[str, str], None]  # takes an extension and what is wrong with that field


def side_values(contents: Mapping[str, Any], fault: Fault) -> dict[str, Any]:
    """Return the columns of a sample: label, caption, split and the others of its side fields.

    `.cls` and `.txt` win over the same columns of the `.json`; `captions` is the list of all texts.

    Args:
        contents: extension → value, from `FieldReader`.
        fault: called with an extension and what is wrong, for a value that can be no label, caption or split.
    """
    fields = contents.get("json") or {}
    values = {k: v for k, v in fields.items() if v is not None and k and k not in _TAKEN}
    captions: Sequence[str] = ()
    for column in (CAPTIONS, "caption"):
        if fields.get(column) is not None and (texts := _texts(fields[column], column, fault)) is not None:
            if CAPTIONS not in values and (column == CAPTIONS or isinstance(fields[column], Nested)):
                values[CAPTIONS] = texts
            captions = (*texts, *captions)
    caption = contents.get("txt") or next(filter(None, captions), None)
    if caption:
        values["caption"] = caption
        if caption not in (known := values.get(CAPTIONS, [caption])):  # the list holds all texts of the row
            values[CAPTIONS] = [caption, *known]
    label = (contents.get("cls") or "").strip()
    for column in LABELS:
        name = (column == "label" and label) or _label(fields.get(column), column, fault)
        if name:
            values[column] = name
    if (split := fields.get("split")) not in (None, ""):
        if isinstance(split, Nested | bool | float):
            fault("json", "whose split is no text")
        else:
            values["split"] = str(split)
    return values


def _texts(value: Any, column: str, fault: Fault) -> list[str] | None:
    """Return the texts of a value that is a text or a list of texts; None if it is neither."""
    texts = [value]
    if isinstance(value, Nested):
        read = json.loads(value)
        texts = [v for v in read if v is not None] if isinstance(read, list) else [read]
    if all(isinstance(v, str) for v in texts):
        return texts
    fault("json", f"whose {column} {'are no texts' if column == CAPTIONS else 'is no text'}")
    return None


def _label(value: Any, column: str, fault: Fault) -> str | None:
    """Return the name of a label; 3.0 is `3`, since pandas writes whole numbers so if some are missing."""
    if value is None:
        return None
    if isinstance(value, Nested):
        fault("json", f"whose {column} is no number or name")
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_EXACT:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def side_kinds(sides: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns of samples besides the core columns, and their DuckDB types."""
    kinds = {n: _kind([s.get(n) for s in sides]) for n in sorted({n for s in sides for n in s} - set(CORE))}
    kinds |= {name: "INTEGER" for name in LABELS if name in kinds}
    return kinds | ({CAPTIONS: "VARCHAR[]"} if CAPTIONS in kinds else {})


def side_columns(
    sides: Sequence[Mapping[str, Any]], types: Mapping[str, str]
) -> tuple[dict[str, pa.Array], tuple[Class, ...], list[str]]:
    """Return label, caption, split and the columns besides the core columns; the classes; notes about the columns.

    Args:
        types: column → DuckDB type, if known; such columns are returned as JSON, to be cast.
    """
    import pyarrow as pa

    labels, classes = _labels(sides)
    columns = {name: pa.array(labels[name], pa.int32()) for name in LABELS}
    columns |= {name: pa.array([s.get(name) for s in sides], pa.string()) for name in ("caption", "split")}
    arrow = {"BOOLEAN": pa.bool_(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "VARCHAR": pa.string(),
             "VARCHAR[]": pa.list_(pa.string())}  # fmt: skip
    kinds = side_kinds(sides)
    notes = []
    for name in kinds.keys() - columns.keys():
        values = [s.get(name) for s in sides]
        kind = kinds[name]
        if name in types:
            kind, values = "VARCHAR", [None if v is None else _json(v) for v in values]
        elif kind == "VARCHAR":
            words = sorted({_WORDS[type(v)] for v in values if v is not None})
            if len(words) > 1:
                notes.append(f"column {name!r} is text: it has {', '.join(words[:-1])} and {words[-1]}")
            values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        elif kind == "DOUBLE":
            values = [None if v is None else float(v) for v in values]
        columns[name] = pa.array(values, arrow[kind])
    if "clean_label" not in kinds:
        del columns["clean_label"]
    return columns, classes, sorted(notes)


def _json(value: Any) -> str:
    return value if isinstance(value, Nested) else json.dumps(value)


def _kind(values: Sequence[Any]) -> str:
    types = {type(v) for v in values if v is not None}
    if types == {bool}:
        return "BOOLEAN"
    if types == {int} and all(-(2**63) <= v < 2**63 for v in values if v is not None):
        return "BIGINT"
    if types <= {int, float} and float in types:
        return "DOUBLE" if all(abs(v) <= MAX_EXACT for v in values if type(v) is int) else "VARCHAR"
    return "VARCHAR"


def _labels(sides: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[int | None]], tuple[Class, ...]]:
    """Return both labels of each sample, and the classes: by number, by wnid if each has one, or by name."""
    words = {name: [side.get(name) for side in sides] for name in LABELS}
    names = {word for column in words.values() for word in column if word is not None}
    numbered = all(w.isascii() and w.isdigit() and len(w) <= MAX_DIGITS for w in names)
    ids = sorted(names, key=_rank)
    index = {word: i for i, word in enumerate(ids)}
    if numbered:
        ids = [str(i) for i in range(max(map(int, names), default=-1) + 1)]
        index = {word: int(word) for word in names}
    labels = {name: [None if w is None else index[w] for w in column] for name, column in words.items()}
    if numbered:
        wnids: dict[int | None, set[str]] = {}
        for label, side in zip(labels["label"], sides, strict=True):
            wnids.setdefault(label, set()).add(str(side.get("wnid")))
        wnids.pop(None, None)
        wnid_of = {label: next(iter(w)) for label, w in wnids.items() if len(w) == 1 and w != {"None"}}
        if len(wnid_of) == len(wnids) == len(set(wnid_of.values())):
            ids = [wnid_of.get(i, word) for i, word in enumerate(ids)]
    return labels, class_list(ids)


def _rank(word: str) -> tuple[bool, float, str]:
    """Return the sort key of a class: numbers by value, then names."""
    return (False, float(word), word) if _NUMBER(word) else (True, 0.0, word)
