"""How loaders stand up to many rows: the first batch over 1.28 M of them, and memory over 10 M.

The rows are those of a small set many times over, under keys of their own, and point into the same tars; peers get
the same files by links. So the sets are as large to a loader as they say, and no larger on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import duckdb
from _readers import BATCH, one_thread, our_epoch, pil_transform
from _writers import Job, Side

from curate.datasets.dataset import INFO, MANIFEST, DatasetInfo, file_sha256, open_dataset, render
from curate.rows.manifest import content_digest, rows_digest
from curate.rows.sql import text

Opener = Callable[[Job], Callable[[], Callable[[], object]]]  # imports; opens; takes the first batch
ROWS = {"million": 1_280_000, "ten-million": 10_000_000}


def prepare(data: Path, small: Path) -> None:
    """Write overlays of so many rows over the tars of a small set, and links to its folders and tars for the peers."""
    data.mkdir()
    for name, rows in ROWS.items():
        _replicate(small / "tars", data / name, rows)
    pool = Path(os.path.realpath(small / "pool"))
    info = json.loads((small / "info.json").read_text())
    for copy in range(-(-ROWS["million"] // info["images"])):
        for folder in (p for p in pool.iterdir() if p.is_dir()):
            (data / "folders" / f"{folder.name}_{copy:03d}").parent.mkdir(exist_ok=True)
            (data / "folders" / f"{folder.name}_{copy:03d}").symlink_to(folder)
        for tar in (small / "tars/shards").glob("*.tar"):
            (data / "tars").mkdir(exist_ok=True)
            (data / "tars" / f"{copy:03d}-{tar.name}").symlink_to(tar)
    (data / "info.json").write_text(json.dumps(info))


def _replicate(dataset: Path, out: Path, rows: int) -> None:
    """Write an overlay of a dataset's rows, over and over, with keys of their own."""
    out.mkdir()
    there = open_dataset(dataset)
    with duckdb.connect() as con:
        con.register("one", there.table())
        columns = list(there.info.columns)
        copies = -(-rows // len(there))
        con.execute(
            "CREATE TABLE many AS SELECT row_number() OVER () - 1 AS place, * REPLACE (key || '_' || copy AS key, "
            f"label::INTEGER AS label) FROM one, range({copies}) r(copy) LIMIT {rows}"
        )
        chosen = ", ".join(f'"{c}"' for c in columns)
        con.execute(
            f"COPY (SELECT {chosen} FROM many ORDER BY place) TO {text(str(out / MANIFEST))} (COMPRESSION zstd)"
        )
        digest = content_digest(rows_digest(con, "many", "place", columns), there.classes)
    info = DatasetInfo(
        name=out.name, digest=digest, plan="-", rows=rows, bytes=there.info.bytes * copies,
        root=os.path.relpath(dataset, out), columns=there.info.columns, classes=there.info.classes, recipe={},
        source={}, ledger=[], manifest_sha256=file_sha256(out / MANIFEST),
    )  # fmt: skip
    (out / INFO).write_bytes(render(info))


def ours(job: Job) -> Callable[[], Callable[[], object]]:
    """Open the dataset and make the loader; then take one batch."""
    import train.data.loader  # noqa: F401 - imported before the clock starts

    def opened() -> Callable[[], object]:
        begin = our_epoch(job, "million")
        return lambda: next(begin())

    return opened


def web_loader(job: Job) -> Callable[[], Callable[[], object]]:
    """It streams, so its first batch comes from the first tars alone."""
    import webdataset

    one_thread()
    tars = sorted(str(p) for p in (job.data / "tars").glob("*.tar"))

    def opened() -> Callable[[], object]:
        data = webdataset.WebDataset(tars, shardshuffle=100, empty_check=False).shuffle(1000)
        data = data.decode("torchrgb8").to_tuple("jpg", "cls").batched(BATCH)
        loader = webdataset.WebLoader(data, batch_size=None, num_workers=job.workers)
        return lambda: next(iter(loader))

    return opened


def image_folder(job: Job) -> Callable[[], Callable[[], object]]:
    """It lists all files when it is opened."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    one_thread()

    def opened() -> Callable[[], object]:
        data = ImageFolder(str(job.data / "folders"), pil_transform(False))
        loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=job.workers)
        return lambda: next(iter(loader))

    return opened


def _rss() -> float:
    """Return the memory of this process and its children that is not shared, in MB (proportional set size)."""
    pids = [os.getpid()]
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    kilobytes = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes / 1e3


def memory_ours(job: Job) -> Callable[[], object]:
    """Twenty batches; what the process and its children grew by since the imports, over the workers."""
    import torchvision.io  # noqa: F401 - not counted

    import train.data.loader  # noqa: F401 - not counted

    before = _rss()

    def grown() -> float:
        batches = our_epoch(job, "ten-million")()
        for _ in range(20):
            next(batches)
        return (_rss() - before) / job.workers

    return grown


def _whole(opener: Opener) -> Side:
    def side(job: Job) -> Callable[[], object]:
        opened = opener(job)
        return lambda: opened()()

    return side


def _after(opener: Opener) -> Side:
    return lambda job: opener(job)()


LOADERS: dict[str, Opener] = {
    "curate loader": ours,
    "webdataset WebLoader (streams)": web_loader,
    "torchvision ImageFolder": image_folder,
}
STARTS = {name: _after(opener) for name, opener in LOADERS.items()}
OPENINGS = {name: _whole(opener) for name, opener in LOADERS.items()}
MEMORIES: dict[str, Side] = {"curate loader": memory_ours}
