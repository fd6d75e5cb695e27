"""For Megatron Energon."""

from __future__ import annotations

import json
import sqlite3
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from curate.datasets.dataset import Dataset
from curate.datasets.exports import sidecar
from curate.datasets.exports._contents import Contents, contents
from curate.datasets.exports._shards import Layout, brace, layouts
from curate.io.files import inside, sync_folder, unfinished, write_atomic
from curate.io.progress import Quiet

FOLDER = ".nv-meta"
TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
    byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
    content_byte_size INTEGER);
"""
INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples (tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts (tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full ON sample_parts (tar_file_id, sample_index, part_name, content_byte_offset,
    content_byte_size);
"""


@sidecar(use='megatron.energon.get_train_dataset("{out}", …)')
def energon(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write `.nv-meta/` and, beside each tar, `.tar.idx`, as `energon prepare` does.

    All shards are its `train` part. Samples are `CaptioningSample` where every row has a caption, else
    `ImageClassificationSample` where every row has a label, else plain dictionaries (`CrudeWebdataset`).
    """
    meta = inside(out, FOLDER)
    meta.mkdir(exist_ok=True)
    files = [inside(out, f"{FOLDER}/index.sqlite")]
    count = len(dataset.info.shards or [])
    with unfinished(files[0]) as beside, progress.stage("indexing shards", count) as stage:
        for record, layout in _indexed(dataset, beside):
            files.append(inside(out, f"{record.file}.idx"))
            starts = [*(sample.start for sample in layout.samples), layout.end]
            write_atomic(files[-1], struct.pack(f"{len(starts)}Q", *starts))
            stage.advance()
    counts = {s.file: s.samples for s in dataset.info.shards or []}
    parts = {"train": [f"{brace(dataset)}.tar"], "val": [], "test": []}
    documents = {
        ".info.json": json.dumps({"shard_counts": counts}, indent=1),
        "split.yaml": _yaml({"split_parts": parts, "exclude": []}),
        "dataset.yaml": _yaml(_samples(contents(str(dataset.manifest)))),
        "index.uuid": str(uuid.UUID(dataset.digest.removeprefix("sha256:")[:32])),
    }
    for name, text in documents.items():
        write_atomic(meta / name, text.encode())
    sync_folder(out)
    return [*files, *(meta / name for name in documents)]


def _indexed(dataset: Dataset, path: Path) -> Iterator[tuple[Any, Layout]]:
    """Fill the database while the shards pass by."""
    con = sqlite3.connect(path)
    try:
        con.executescript(TABLES)
        for number, (record, layout) in enumerate(layouts(dataset)):
            ends = [*(sample.start for sample in layout.samples[1:]), layout.end]
            con.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                (
                    (number, sample.key, i, sample.start, end - sample.start)
                    for i, (sample, end) in enumerate(zip(layout.samples, ends, strict=True))
                ),
            )
            con.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                ((number, i, *part) for i, sample in enumerate(layout.samples) for part in sample.parts),
            )
            yield record, layout
        con.executescript(INDEXES)
        con.commit()
    finally:
        con.close()


def _samples(found: Contents) -> dict[str, Any]:
    image = ",".join(found.images)
    if found.captions == found.rows:
        kind, fields = "CaptioningSample", {"image": image, "caption": "txt"}
    elif found.labels == found.rows:
        kind, fields = "ImageClassificationSample", {"image": image, "label": "cls"}
    else:
        return {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
    return {"sample_type": {"__module__": "megatron.energon", "__class__": kind}, "field_map": fields}


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False)
