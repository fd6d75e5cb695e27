"""Small datasets, built by hand: pictures of coloured noise that a small model can tell apart."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from curate.datasets.dataset import ClassRecord, Dataset, DatasetInfo, ShardRecord, open_dataset
from curate.rows.manifest import CORE, digest

COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200), (180, 180, 60))


@dataclass(frozen=True)
class Sample:
    """A row and its bytes."""

    key: str
    label: int | None
    data: bytes
    split: str | None = None
    ext: str = "png"
    caption: str | None = None


def picture(number: int, label: int, size: tuple[int, int] = (40, 32), kind: str = "PNG") -> bytes:
    """Return an encoded image: its class's colour under noise that differs by number."""
    noise = np.random.default_rng(number).normal(0, 40, (size[1], size[0], 3))
    pixels = np.clip(noise + COLOURS[label % len(COLOURS)], 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def pictures(
    count: int, classes: int = 4, size: tuple[int, int] = (40, 32), split: str | None = None
) -> list[Sample]:
    """Return samples whose classes take turns."""
    return [
        Sample(f"{split or 'all'}/{i:04d}", i % classes, picture(i, i % classes, size), split)
        for i in range(count)
    ]


def write_dataset(
    path: Path, samples: list[Sample], *, classes: int = 4, sharded: bool = False, sizes: bool = True
) -> Dataset:
    """Write a dataset as `curate build` would, as an overlay over a folder of files or with one shard."""
    pool = path.parent / f"{path.name}-pool"
    path.mkdir(parents=True)
    rows = []
    for sample in samples:
        file = f"{sample.key}.{sample.ext}"
        (pool / file).parent.mkdir(parents=True, exist_ok=True)
        (pool / file).write_bytes(sample.data)
        rows.append(
            dict.fromkeys(CORE)
            | {"key": sample.key, "file": file, "offset": 0, "size": len(sample.data), "ext": sample.ext}
            | {"label": sample.label, "split": sample.split, "caption": sample.caption}
            | dict(zip(("width", "height"), _size(sample.data) if sizes else (None, None), strict=True))
        )
    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "INTEGER": pa.int32()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in CORE.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema), path / "manifest.parquet")
    info = DatasetInfo(
        name=path.name,
        digest=digest([[s.key, s.label, s.split, len(s.data)] for s in samples]),
        plan="sha256:0",
        rows=len(samples),
        bytes=sum(len(sample.data) for sample in samples),
        root=f"../{pool.name}",
        columns=dict(CORE),
        classes=[ClassRecord(index=i, name=f"class {i}") for i in range(classes)],
        recipe={},
        source={},
        ledger=[],
        manifest_sha256="0",
        shards=[_shard(path, samples)] if sharded else None,
    )
    (path / "dataset.json").write_text(info.model_dump_json())
    return open_dataset(path)


def _size(data: bytes) -> tuple[int, int] | tuple[None, None]:
    try:
        return Image.open(io.BytesIO(data)).size
    except UnidentifiedImageError:
        return None, None


def _shard(path: Path, samples: list[Sample]) -> ShardRecord:
    tar_path = path / "shards" / "000000.tar"
    tar_path.parent.mkdir()
    with tarfile.open(tar_path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            member = tarfile.TarInfo(f"{sample.key}.{sample.ext}")
            member.size = len(sample.data)
            tar.addfile(member, io.BytesIO(sample.data))
    with tarfile.open(tar_path) as tar:
        offsets = [member.offset_data for member in tar]
    index = {"file": ["shards/000000.tar"] * len(samples), "offset": offsets}
    pq.write_table(
        pa.table({"key": [s.key for s in samples]} | index | {"size": [len(s.data) for s in samples]}),
        path / "shards" / "index.parquet",
    )
    return ShardRecord(
        file="shards/000000.tar", samples=len(samples), bytes=tar_path.stat().st_size, sha256="0"
    )
