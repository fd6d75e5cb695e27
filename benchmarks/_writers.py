"""Who writes a training set from a folder of images, or from tars: we and our peers.

A side is a function of a `Job`. It imports and prepares, and returns the work, which alone is timed. All keep the
images' own bytes; none re-encodes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES_PER_SHARD = 10_000
TARS = 16  # that readers share, so that each of two workers has as many
CHUNK_BYTES = 64 << 20  # of litdata's and MosaicML's shards, about those of ours


@dataclass(frozen=True)
class Job:
    """What a side is given.

    Args:
        data: the folder that `prepare` filled, which all sides read and none changes.
        out: a folder to write to, which does not exist yet.
        workers: threads or processes, for sides that know them.
    """

    data: Path
    out: Path
    workers: int


Side = Callable[[Job], Callable[[], object]]


def files_of(job: Job) -> list[tuple[Path, int]]:
    """Return the images of the folder with their labels, in order."""
    pool = Path(os.readlink(job.data / "pool"))
    classes = sorted(p.name for p in pool.iterdir() if p.is_dir())
    return [(file, i) for i, name in enumerate(classes) for file in sorted((pool / name).rglob("*.*"))]


def tars_of(job: Job) -> list[str]:
    """Return the tars of the pool."""
    return sorted(str(p) for p in (job.data / "tars/shards").glob("*.tar"))


# --- from a folder


def curate_build(job: Job) -> Callable[[], object]:
    """The whole build: index from scratch, steps, manifest, shards, digests, synced to the disk."""
    from curate.builds.build import build
    from curate.recipes.recipe import parse

    os.environ["CURATE_CACHE"] = str(job.out.parent / "cache")
    shutil.rmtree(job.out.parent / "cache", ignore_errors=True)
    recipe = parse({"name": "bench", "source": {"folder": str(job.data / "pool")}})
    return lambda: build(recipe, job.out, workers=job.workers)


def curate_shard(job: Job) -> Callable[[], object]:
    """The shards alone, of an overlay that stands."""
    return _shards(job, "folder-overlay")


def _shards(job: Job, overlay: str) -> Callable[[], object]:
    from curate.builds.sharding import shard

    # Beside the original, because its root is told relative to it.
    copy = job.data / f"{overlay}.copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(job.data / overlay, copy)
    return lambda: shard(copy, workers=job.workers)


def shard_writer(job: Job) -> Callable[[], object]:
    """What a script does today: a sample at a time."""
    import webdataset

    files = files_of(job)

    def write() -> None:
        job.out.mkdir()
        with webdataset.ShardWriter(
            str(job.out / "%06d.tar"), maxcount=SAMPLES_PER_SHARD, verbose=0
        ) as writer:
            for path, label in files:
                key = f"{path.parent.name}/{path.stem}".replace(".", "_")
                sample = {"__key__": key, "jpg": path.read_bytes(), "cls": label}
                writer.write(sample | {"json": {"key": key, "file": path.name, "label": label}})

    return write


def img2dataset(job: Job) -> Callable[[], object]:
    """Its downloader over `file://` addresses, with `disable_all_reencoding`, which stores what it gets."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from img2dataset import download

    files = files_of(job)
    urls = job.out.parent / "urls.parquet"
    table = {"url": [p.as_uri() for p, _ in files], "label": [label for _, label in files]}
    pq.write_table(pa.table(table), urls)
    return lambda: download(
        url_list=str(urls), input_format="parquet", url_col="url", save_additional_columns=["label"],
        output_folder=str(job.out), output_format="webdataset", disable_all_reencoding=True, extract_exif=False,
        compute_hash=None, processes_count=job.workers, thread_count=16, number_sample_per_shard=SAMPLES_PER_SHARD,
        enable_wandb=False, disallowed_header_directives=[],
    )  # fmt: skip


def _as_item(pair: tuple[Path, int]) -> dict[str, Any]:
    return {"image": pair[0].read_bytes(), "label": pair[1]}


def litdata(job: Job) -> Callable[[], object]:
    """`optimize` with as many processes as workers."""
    from litdata import optimize

    files = files_of(job)
    return lambda: optimize(
        fn=_as_item, inputs=files, output_dir=str(job.out), chunk_bytes=CHUNK_BYTES, num_workers=job.workers
    )


def mosaicml(job: Job) -> Callable[[], object]:
    """`MDSWriter`, which has one process."""
    files = files_of(job)
    return lambda: _to_mds(({"image": p.read_bytes(), "label": label} for p, label in files), job.out)


def _to_mds(items: Iterator[dict[str, Any]], out: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(
        out=str(out), columns={"image": "bytes", "label": "int"}, size_limit=CHUNK_BYTES
    ) as writer:
        for item in items:
            writer.write(item)


def hugging_face(job: Job) -> Callable[[], object]:
    """`load_dataset("imagefolder")`, then `to_parquet`."""
    import datasets

    datasets.disable_progress_bars()
    cache = str(job.out.parent / "hf")
    shutil.rmtree(cache, ignore_errors=True)

    def write() -> None:
        pool = os.path.realpath(job.data / "pool")
        data = datasets.load_dataset("imagefolder", data_dir=pool, split="train", cache_dir=cache)
        data.to_parquet(job.out)

    return write


def tar(job: Job) -> Callable[[], object]:
    """GNU tar: no order of its own, no labels, no index, no digests."""
    command = ["tar", "-cf", str(job.out), "-C", os.path.realpath(job.data / "pool"), "."]
    return lambda: subprocess.run(command, check=True)


def cat(job: Job) -> Callable[[], object]:
    """All bytes behind each other."""
    pool = os.path.realpath(job.data / "pool")
    command = f"find '{pool}' -type f -print0 | xargs -0 cat > '{job.out}'"
    return lambda: subprocess.run(command, shell=True, check=True)


# --- from tars


def curate_shard_tars(job: Job) -> Callable[[], object]:
    """The shards of an overlay over the tars."""
    return _shards(job, "tars-overlay")


def _samples(job: Job) -> Iterator[dict[str, Any]]:
    import webdataset

    yield from webdataset.WebDataset(tars_of(job), shardshuffle=False)


def shard_writer_tars(job: Job) -> Callable[[], object]:
    """`WebDataset` to `ShardWriter`, bytes through and through."""
    import webdataset

    def write() -> None:
        job.out.mkdir()
        with webdataset.ShardWriter(
            str(job.out / "%06d.tar"), maxcount=SAMPLES_PER_SHARD, verbose=0
        ) as writer:
            for sample in _samples(job):
                writer.write({k: v for k, v in sample.items() if k not in ("__url__", "__local_path__")})

    return write


def _items_of(tar: str) -> Iterator[dict[str, Any]]:
    import webdataset

    for sample in webdataset.WebDataset(tar, shardshuffle=False):
        yield {"image": sample["jpg"], "label": int(sample["cls"])}


def litdata_tars(job: Job) -> Callable[[], object]:
    """`optimize` over the tars."""
    from litdata import optimize

    return lambda: optimize(
        fn=_items_of,
        inputs=tars_of(job),
        output_dir=str(job.out),
        chunk_bytes=CHUNK_BYTES,
        num_workers=job.workers,
    )


def mosaicml_tars(job: Job) -> Callable[[], object]:
    """`WebDataset` to `MDSWriter`."""
    import webdataset  # noqa: F401 - imported before the clock starts

    return lambda: _to_mds((item for tar in tars_of(job) for item in _items_of(tar)), job.out)


def hugging_face_tars(job: Job) -> Callable[[], object]:
    """`load_dataset("webdataset")`, then `to_parquet`."""
    import datasets

    datasets.disable_progress_bars()
    cache = str(job.out.parent / "hf")
    shutil.rmtree(cache, ignore_errors=True)

    def write() -> None:
        data = datasets.load_dataset("webdataset", data_files=tars_of(job), split="train", cache_dir=cache)
        data.to_parquet(job.out)

    return write


def cp(job: Job) -> Callable[[], object]:
    """A copy of the tars, unread."""
    return lambda: subprocess.run(["cp", "-r", str(job.data / "tars/shards"), str(job.out)], check=True)


FROM_FOLDER: dict[str, Side] = {
    "curate build (index, shards, digests)": curate_build,
    "curate shard (of an overlay)": curate_shard,
    "webdataset ShardWriter": shard_writer,
    "img2dataset, file://": img2dataset,
    "litdata optimize": litdata,
    "MosaicML MDSWriter": mosaicml,
    "Hugging Face datasets, to_parquet": hugging_face,
    "GNU tar": tar,
    "cat": cat,
}
FROM_TARS: dict[str, Side] = {
    "curate shard (of an overlay)": curate_shard_tars,
    "webdataset to ShardWriter": shard_writer_tars,
    "litdata optimize": litdata_tars,
    "MosaicML MDSWriter": mosaicml_tars,
    "Hugging Face datasets, to_parquet": hugging_face_tars,
    "cp": cp,
}


def prepare(data: Path, pool: Path) -> int:
    """Make what the sides read: the pool, its tars, and overlays over both; return how many images."""
    from curate.builds.build import build
    from curate.recipes.recipe import parse

    data.mkdir(parents=True, exist_ok=True)
    (data / "pool").symlink_to(pool.resolve())
    os.environ["CURATE_CACHE"] = str(data / "cache")
    folder = {"name": "bench", "source": {"folder": str(pool)}, "samples_per_shard": SAMPLES_PER_SHARD}
    [overlay] = build(parse(folder), data / "folder-overlay", overlay=True)
    evenly = -(-len(overlay.dataset) // TARS)
    [built] = build(parse(folder | {"samples_per_shard": evenly}), data / "tars")
    tars = folder | {"source": {"shards": str(data / "tars/shards")}}
    build(parse(tars | {"seed": 1}), data / "tars-overlay", overlay=True)
    (data / "info.json").write_text(
        json.dumps({"images": len(built.dataset), "bytes": built.dataset.info.bytes})
    )
    return len(built.dataset)
