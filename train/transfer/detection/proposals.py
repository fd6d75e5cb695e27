"""Proposals: boxes that may hold an object, found elsewhere and kept in a file.

Parquet: a row a box, with columns `key` (of the image, as the task has it), `x1`, `y1`, `x2`, `y2`, and `score` where
the boxes are not in order. Or NumPy's npz: an array of N x 4 for each key. Boxes are in pixels of the image as stored,
from its upper left corner, so that (0, 0, width, height) is all of it; of each image the best come first.
"""

# N proposals of an image

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import DataError, RecipeError
from curate.io.files import write_atomic
from train.transfer.detection.task import DetectionSplit

COLUMNS = ("x1", "y1", "x2", "y2")
SLACK = 1.0  # pixels that a box may stick out of its image; it is cut off
UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)  # what a damaged npz raises, or one whose header asks for terabytes
FORMATS = "Parquet with columns key, x1, y1, x2, y2 and perhaps score; or npz with an array of N x 4 a key"


def read_proposals(path: str | Path) -> dict[str, np.ndarray]:
    """Return float32 boxes_N4 of each image, the best first.

    Raises:
        RecipeError: there is no such file, or it is of another kind.
        DataError: it is damaged, or not in the form above.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise RecipeError(f"proposals: {path}: there is no such file", hint=FORMATS)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".parquet":
        return _read_parquet(path)
    raise RecipeError(f"proposals: {path}: is neither .parquet nor .npz", hint=FORMATS)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {key: np.asarray(arrays[key]) for key in arrays}
    except UNREADABLE as error:
        raise DataError(f"proposals: {path}: cannot be read ({error})", hint=FORMATS) from error
    for key, boxes in found.items():
        if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
            raise DataError(f"proposals: {path}: {key} is {boxes.dtype} of shape {boxes.shape}", hint=FORMATS)
    return {key: boxes.astype(np.float32) for key, boxes in found.items()}


def _read_parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"proposals: {path}: cannot be read ({error})", hint=FORMATS) from error
    missing = [name for name in ("key", *COLUMNS) if name not in table.schema.names]
    if missing:
        raise DataError(f"proposals: {path}: no column {missing[0]!r}", hint=FORMATS)
    try:
        boxes_R4 = np.stack([table[name].cast(pa.float32()).to_numpy() for name in COLUMNS], axis=1)
        keys = table["key"].cast(pa.string())
        ranked = table["score"].cast(pa.float64()).to_numpy() if "score" in table.schema.names else None
    except pa.ArrowException as error:
        raise DataError(f"proposals: {path}: {error}", hint=FORMATS) from error
    encoded = keys.combine_chunks().dictionary_encode()
    codes_R = encoded.indices.to_numpy(zero_copy_only=False)
    best_R = np.arange(len(codes_R)) if ranked is None else -ranked
    order_R = np.lexsort((best_R, codes_R))
    ends = np.cumsum(np.bincount(codes_R, minlength=len(encoded.dictionary)))[:-1]
    return dict(zip(encoded.dictionary.to_pylist(), np.split(boxes_R4[order_R], ends), strict=True))


def write_proposals(path: str | Path, found: Mapping[str, np.ndarray]) -> None:
    """Write proposals as Parquet.

    Args:
        path: of the file.
        found: boxes_N4 of each image, the best first.
    """
    keys = [key for key, boxes_N4 in found.items() for _ in range(len(boxes_N4))]
    boxes_R4 = np.concatenate([np.zeros((0, 4)), *found.values()])
    columns = {name: pa.array(boxes_R4[:, i], pa.float32()) for i, name in enumerate(COLUMNS)}
    table = pa.table({"key": pa.array(keys, pa.string()), **columns})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomic(Path(path).expanduser(), sink.getvalue().to_pybytes())


def file_digest(path: str | Path) -> str:
    """Return "sha256:…" of a file, which says which proposals a result is of."""
    return "sha256:" + hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()


def of_split(
    found: Mapping[str, np.ndarray], split: DetectionSplit, rows: Iterable[int], *, most: int, where: str
) -> dict[str, np.ndarray]:
    """Return the best proposals of some images of a split, within them.

    Args:
        most: of an image; the first ones are taken.
        where: what errors call the file.

    Raises:
        DataError: an image has none, or one is outside its image.
    """
    chosen: dict[str, np.ndarray] = {}
    for row in rows:
        key, truth = split.keys[row], split.truths[row]
        if key not in found or not len(found[key]):
            raise DataError(
                f"proposals: {where}: image {key!r} has none",
                hint="the file needs boxes for every image of the task, by the task's keys",
            )
        boxes_N4, size_4 = found[key], np.array([truth.width, truth.height] * 2, dtype=np.float32)
        sound_N = np.isfinite(boxes_N4).all(axis=1) & (boxes_N4 >= -SLACK).all(axis=1)
        sound_N &= (boxes_N4 <= size_4 + SLACK).all(axis=1)
        if not sound_N.all():
            raise DataError(
                f"proposals: {where}: image {key!r}, box {boxes_N4[~sound_N][0].tolist()} is outside its "
                f"{truth.width} x {truth.height} pixels",
                hint="boxes are x1, y1, x2, y2 in pixels of the image as stored",
            )
        boxes_N4 = np.clip(boxes_N4, 0, size_4)
        boxes_N4 = boxes_N4[(boxes_N4[:, 2:] > boxes_N4[:, :2]).all(axis=1)]
        if not len(boxes_N4):
            raise DataError(
                f"proposals: {where}: image {key!r} has none with an area", hint="boxes are x1, y1, x2, y2"
            )
        chosen[key] = boxes_N4[:most]
    return chosen
