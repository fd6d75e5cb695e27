"""Records: JSON documents that complete a folder (`dataset.json`, `run.json`), written last and read strictly."""

from __future__ import annotations

import json
import platform
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from curate.errors import DataError
from curate.io.executors import cores
from curate.io.paths import AnyPath


class Record(BaseModel):
    """A document or a part of one: immutable, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def environment(*packages: str) -> dict[str, Any]:
    """Return the provenance of a folder for its record: this `machine`, and the `versions` of some packages."""
    from importlib.metadata import version

    machine = {"python": platform.python_version(), "system": platform.platform(), "cores": cores()}
    return {"machine": machine, "versions": {name: version(name) for name in packages}}


R = TypeVar("R", bound=Record)


def read_record(path: AnyPath, kind: type[R], *, format_version: int, hint: str) -> R:
    """Read a document of a kind.

    Args:
        format_version: the `format` that this version reads.
        hint: what to do if it is damaged.

    Raises:
        FileNotFoundError, NotADirectoryError: the file does not exist.
        DataError: the document is damaged or of another format.
    """
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})", hint=hint) from error
    if isinstance(document, dict) and document.get("format", format_version) != format_version:
        raise DataError(f"{path}: format {document['format']}, this version reads {format_version}")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(f"{path}: {where}: {first['msg']}", hint=hint) from error
