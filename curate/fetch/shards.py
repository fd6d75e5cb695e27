"""Shards that img2dataset has finished, taken over: what became of each row, and where its bytes are.

A shard counts when its report, its table and its tar agree, whatever img2dataset itself would think of the files.
From then on it is ours, and is never downloaded again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from curate.errors import DataError
from curate.io.files import sync_file, unfinished
from curate.io.image_headers import BadImage, NeedMore, probe
from curate.io.tars.headers import FILE, BadTar
from curate.io.tars.scan import Tar, open_tar, split_name
from curate.io.web.outcomes import OK, reason_of

KINDS = {
    "row": "string", "outcome": "string", "detail": "string", "file": "string", "offset": "int64", "size": "int64",
    "ext": "string", "width": "int32", "height": "int32", "sha256": "string", "at": "string", "guards": "string",
    "url": "string",
}  # fmt: skip


@dataclass(frozen=True)
class RowOutcome:
    """What became of a row.

    Args:
        row: its key; where several rows have one URL, the key of the first, which stands for all.
        outcome: see `outcomes`.
        detail: what exactly happened, where there is more to say.
        file: the tar that holds its bytes, relative to the pool, and where in it; None without bytes.
        ext, width, height: from the image's header.
        sha256: of its bytes, in hex.
        at: when its shard was finished, in UTC.
        guards: digest of the limits it was fetched under.
        url: what was asked for: every row of this URL shares the outcome and the bytes.
    """

    row: str
    outcome: str
    detail: str | None = None
    file: str | None = None
    offset: int | None = None
    size: int | None = None
    ext: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    at: str | None = None
    guards: str | None = None
    url: str | None = None


def write_outcomes(outcomes: list[RowOutcome], path: Path) -> None:
    """Write what became of rows, wholly or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f.name for f in fields(RowOutcome)]
    columns = list(zip(*map(astuple, outcomes), strict=True)) or [()] * len(names)
    arrays = [pa.array(c, KINDS[n]) for n, c in zip(names, columns, strict=True)]
    with unfinished(path) as beside:
        pq.write_table(pa.table(arrays, names=names), beside, compression="zstd")


def finished(folder: Path) -> list[str]:
    """Return the names of the shards in img2dataset's folder of which it says that they are finished."""
    return sorted(f.name.removesuffix("_stats.json") for f in folder.glob("*_stats.json"))


def started(folder: Path) -> list[str]:
    """Return the names of the shards that it began and did not finish."""
    return sorted({f.stem for f in folder.glob("*.tar")} - set(finished(folder)))


def read_shard(
    folder: Path, name: str, *, pool: Path, limits_digest: str, hashes_only: bool = False
) -> list[RowOutcome]:
    """Return what became of each row of a shard.

    Args:
        folder: img2dataset's.
        name: of the shard.
        pool: what `file` is relative to.
        limits_digest: of the limits it was fetched under.
        hashes_only: whether the tar holds the sha256 of the bytes in their place.

    Raises:
        DataError: its report, its table and its tar do not agree, or one is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tar = folder / f"{name}.tar"
    try:
        stats = json.loads((folder / f"{name}_stats.json").read_text())
        columns = ["row", "url", "key", "status", "error_message"]
        rows = pq.ParquetFile(folder / f"{name}.parquet").read(columns).to_pylist()
        images = _images(tar, hashes_only)
    except (OSError, ValueError, KeyError, BadTar, pa.ArrowException) as error:
        raise DataError(f"{folder / name}: not a whole shard ({error})") from error
    succeeded = [r for r in rows if r["status"] == "success"]
    if (stats["count"], stats["successes"]) != (len(rows), len(succeeded)) or {
        r["key"] for r in succeeded
    } != images.keys():
        raise DataError(
            f"{folder / name}: {len(rows)} rows, {len(succeeded)} fetched, {len(images)} images in the tar, "
            f"where {stats['count']} and {stats['successes']} are reported"
        )
    at = datetime.fromtimestamp(stats["end_time"], timezone.utc).isoformat(timespec="seconds")
    place = str(tar.relative_to(pool))
    outcomes = []
    for row in rows:
        if row["status"] == "success":
            outcome = images[row["key"]] | {"outcome": OK, "file": None if hashes_only else place}
        else:
            message = row["error_message"] or "no record"
            outcome = {"outcome": reason_of(message), "detail": message.partition(": ")[2] or None}
        outcomes.append(RowOutcome(row=row["row"], at=at, guards=limits_digest, url=row["url"], **outcome))
    return outcomes


def _images(path: Path, hashes_only: bool) -> dict[str, dict[str, Any]]:
    """Return what each image of a tar is, by its member's name; the tar is read to its end."""
    images: dict[str, dict[str, Any]] = {}
    with open_tar(str(path)) as tar:
        for member in tar.members():
            name, extension = split_name(member.name)
            if member.kind == FILE and extension == "jpg":  # img2dataset's word for an image of any kind
                data = tar.read(member.offset, member.size)
                images[name] = {"sha256": data.decode()} if hashes_only else _image(tar, data, member)
    if not hashes_only:
        sync_file(path)
    return images


def _image(tar: Tar, data: bytes, member: Any) -> dict[str, Any]:
    try:
        header = probe(data)
    except (BadImage, NeedMore) as error:  # it was looked at before
        raise BadTar(f"{member.name}: no image any more ({error})") from error
    return {
        "offset": member.offset, "size": member.size, **header._asdict(), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
