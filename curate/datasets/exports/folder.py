"""For whatever reads class folders: torchvision's `ImageFolder`, Hugging Face `imagefolder`, a file manager."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.datasets.dataset import Dataset
from curate.datasets.exports import copy
from curate.datasets.exports._images import folded, reserved, splits, with_bytes
from curate.errors import DataError
from curate.io.files import inside, write_atomic
from curate.io.progress import Quiet

if TYPE_CHECKING:
    import pyarrow as pa

UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|]|^[.~]|[. ]$')  # what some file system, or a shell, takes amiss
METADATA = "metadata.jsonl"  # beside the classes' folders
NO_CLASSES = "images"
LONGEST = 200  # bytes of a class's name; file systems take 255 for a name


@copy(use='torchvision.datasets.ImageFolder("{out}/train")', version=2)
def folder(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write `SPLIT/CLASS/KEY.EXT`, a file an image, with the `/` of a key as `+`; rows without a split are `train`.

    No two names differ in case alone, or in how an accent is written: of files whose keys do, all but the first end
    in `~2`, `~3`, …, and so do those that Windows takes for devices.

    A class's folder is its wnid, or else its name. Readers number classes by the order of their folders: where that
    is not the order of the labels, the label's number stands before each name. Where there are captions,
    `SPLIT/metadata.jsonl` has them as `imagefolder` reads them: `file_name`, `caption`, and `label` by name.

    Raises:
        DataError: a file is gone or has changed, or some rows have a label and others none.
    """
    table = dataset.table()
    names = _names(dataset, table)
    files = _Files(table)
    reader = dataset.reader()
    captioned = table["caption"].null_count < len(table)
    with progress.stage("writing files", len(table)) as stage:
        for split, rows in splits(table, dataset).items():
            for name in names.values():
                inside(out, f"{split}/{name}").mkdir(parents=True, exist_ok=True)
            lines: list[str] = []
            for lot, data in with_bytes(rows, reader):
                for row, content in zip(lot.to_pylist(), data, strict=True):
                    file = files.name(f"{split}/{names[row['label']]}", row["key"], row["ext"])
                    (out / file).write_bytes(content)
                    if captioned:
                        lines.append(_line(dataset, file.removeprefix(f"{split}/"), row))
                stage.advance(lot.num_rows)
            if captioned:
                write_atomic(out / split / METADATA, "".join(lines).encode())
    os.sync()  # once for all, not a wait for the disk a file
    return [out]


def _names(dataset: Dataset, table: pa.Table) -> dict[int | None, str]:
    """Return the folder of each label, so that their sorted order is that of the labels."""
    unlabelled = table["label"].null_count
    if unlabelled == len(table):
        return {None: NO_CLASSES}
    if unlabelled:
        raise DataError(
            f"{dataset.path}: {unlabelled:,} of {len(table):,} rows have no label, and so no class's folder",
            hint="`where: label IS NOT NULL` leaves them out; `--to parquet` takes them",
        )
    names = [_safe(c.id) for c in dataset.classes]
    if names != sorted(names) or len({folded(name) for name in names}) < len(names):
        width = len(str(len(names) - 1))
        names = [f"{i:0{width}d} {name}" for i, name in enumerate(names)]
    return dict(enumerate(names))


def _safe(name: str) -> str:
    """Return a class's name as one folder's."""
    short = name.encode(errors="replace")[:LONGEST].decode(errors="ignore")
    escaped = UNSAFE.sub(lambda found: f"_x{ord(found[0]):02x}", short)
    if reserved(escaped) or folded(escaped) == METADATA:
        escaped = f"_x{ord(escaped[0]):02x}{escaped[1:]}"
    return escaped.encode()[:LONGEST].decode(errors="ignore") or "_"


class _Files:
    """Gives each image a name of its own in its folder, also to a file system that knows no case.

    Args:
        table: the rows; keys are unique, and plain ASCII.
    """

    def __init__(self, table: pa.Table) -> None:
        import pyarrow.compute as pc

        counts = pc.value_counts(pc.utf8_lower(table["key"]))
        self._alike = set(counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist())
        self._taken: Counter[str] = Counter()

    def name(self, folder: str, key: str, ext: str) -> str:
        """Return the path of a row's file; the `/` of its key is a `+`."""
        file = f"{folder}/{key.replace('/', '+')}"
        number = 1 + reserved(key)
        if key.lower() in self._alike:
            taken = f"{file}.{ext}".lower()
            number += self._taken[taken]
            self._taken[taken] += 1
        return f"{file}{f'~{number}' if number > 1 else ''}.{ext}"


def _line(dataset: Dataset, file: str, row: dict[str, Any]) -> str:
    metadata = {"file_name": file, "caption": row["caption"]}
    if row["label"] is not None:
        metadata["label"] = dataset.classes[row["label"]].name
    return json.dumps(metadata, ensure_ascii=False) + "\n"
