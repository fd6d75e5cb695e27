"""Columns as Hugging Face `datasets` names their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curate.datasets.dataset import ClassRecord

VALUES = {
    "VARCHAR": "string",
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "BOOLEAN": "bool",
}


def value(kind: str) -> dict[str, Any] | None:
    """Return the feature of a DuckDB type in the words of a card; None where there is none."""
    if kind.endswith("[]"):
        inner = VALUES.get(kind[:-2])
        return {"list": inner} if inner else None
    return {"dtype": VALUES[kind]} if kind in VALUES else None


def card_fields(
    members: Sequence[str], columns: Mapping[str, str], classes: Sequence[ClassRecord]
) -> list[dict[str, Any]]:
    """Return the fields of a sample of a shard, for the YAML of a card.

    Args:
        members: the extensions of its members.
        columns: those of the manifest, with their DuckDB types; they are what `.json` holds.
    """
    names = {str(i): one.name for i, one in enumerate(classes)}
    row = [{"name": c, **told} for c, kind in columns.items() if (told := value(kind))]
    known: dict[str, dict[str, Any]] = {
        "cls": {"dtype": {"class_label": {"names": names}}} if names else {"dtype": "int64"},
        "txt": {"dtype": "string"},
        "json": {"struct": row},
    }
    fields = [{"name": member, **known.get(member, {"dtype": "image"})} for member in members]
    return fields + [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
