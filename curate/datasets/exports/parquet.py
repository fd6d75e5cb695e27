"""For whatever reads Parquet with images in it: Hugging Face `datasets`, DuckDB, Spark, Polars."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.datasets.dataset import Dataset
from curate.datasets.exports import copy
from curate.datasets.exports._contents import VALUES
from curate.datasets.exports._images import splits, with_bytes
from curate.io.files import sync_file, sync_folder
from curate.io.progress import Quiet, Stage

if TYPE_CHECKING:
    import pyarrow as pa

BYTES_PER_FILE = 256 << 20  # of images
ELSEWHERE = ("file", "offset", "size", "ext")  # where the bytes came from; here they are


@copy(use='datasets.load_dataset("{out}")', version=1)
def parquet(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write `data/SPLIT-00000-of-00012.parquet`: `image` (a struct of `bytes` and `path`), then the manifest's columns.

    The bytes are the original ones, and `path` is the key with its extension. Rows without a split are `train`. The
    schema's metadata tell `datasets` that `image` is an image and `label` a class with a name.

    Raises:
        DataError: a file is gone or has changed.
    """
    (out / "data").mkdir(exist_ok=True)
    reader, files = dataset.reader(), []
    with progress.stage("writing Parquet", len(dataset)) as stage:
        for split, rows in splits(dataset.table(), dataset).items():
            parts = _parts(rows)
            for number, part in enumerate(parts):
                files.append(out / "data" / f"{split}-{number:05d}-of-{len(parts):05d}.parquet")
                _write(files[-1], part, dataset, reader, stage)
    sync_folder(out / "data")
    return files


def _parts(rows: pa.Table) -> list[pa.Table]:
    """Cut the rows where the images of a file come to `BYTES_PER_FILE`."""
    import numpy as np
    import pyarrow.compute as pc

    before = np.cumsum(pc.fill_null(rows["size"], 0).to_numpy()) // BYTES_PER_FILE
    cuts = [0, *(np.flatnonzero(np.diff(before)) + 1).tolist(), rows.num_rows]
    return [rows.slice(start, end - start) for start, end in pairwise(cuts)]


def _write(path: Path, rows: pa.Table, dataset: Dataset, reader: Any, stage: Stage) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [name for name in rows.column_names if name not in ELSEWHERE]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    label = {"label": pa.int64()}  # what `datasets` keeps a class as
    types = {name: label.get(name, rows.schema.field(name).type) for name in columns}
    schema = pa.schema({"image": image, **types}, {"huggingface": json.dumps(_features(dataset, columns))})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=columns) as writer:
        for lot, data in with_bytes(rows, reader):
            names = zip(lot["key"].to_pylist(), lot["ext"].to_pylist(), strict=True)
            paths = pa.array([f"{key}.{ext}" for key, ext in names], pa.string())
            images = pa.StructArray.from_arrays([pa.array(data, pa.binary()), paths], fields=list(image))
            rest = [lot[name].cast(types[name]) for name in columns]
            writer.write_table(pa.table([images, *rest], schema=schema))
            stage.advance(lot.num_rows)
    sync_file(path)


def _features(dataset: Dataset, columns: list[str]) -> dict[str, Any]:
    """Return what `datasets` keeps of a table's columns in its schema; it makes out the others by itself."""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for name in columns:
        kind = dataset.info.columns[name]
        if name == "label" and dataset.classes:
            features[name] = {"_type": "ClassLabel", "names": [c.name for c in dataset.classes]}
        elif kind in VALUES:
            features[name] = {"_type": "Value", "dtype": "int64" if name == "label" else VALUES[kind]}
    return {"info": {"features": features}}
