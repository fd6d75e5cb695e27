"""For NVIDIA DALI's `fn.readers.webdataset`, which else walks through every tar before it starts."""

from __future__ import annotations

from pathlib import Path

from curate.datasets.dataset import SHARDS, Dataset
from curate.datasets.exports import sidecar
from curate.datasets.exports._shards import layouts
from curate.io.files import inside, write_atomic
from curate.io.progress import Quiet

VERSION = "v1.2"


@sidecar(
    use='fn.readers.webdataset(paths=list(braceexpand("{path}/{shards}.tar")), '
    'index_paths=list(braceexpand("{out}/{shards}.idx")), ext=["jpg", "cls"])',
    movable=True,
)
def dali(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write an index for each tar, as DALI's own `wds2idx` does: `shards/000000.idx`, … below `out`.

    The first line has the format's version and the number of samples; then a line a sample, with extension, offset,
    size in bytes and name of each member.
    """
    files: list[Path] = []
    inside(out, SHARDS).mkdir(exist_ok=True)
    with progress.stage("indexing shards", len(dataset.info.shards or [])) as stage:
        for record, layout in layouts(dataset):
            lines = [f"{VERSION} {len(layout.samples)}"]
            for sample in layout.samples:
                parts = (f"{p.ext} {p.offset} {p.size} {sample.key}.{p.ext}" for p in sample.parts)
                lines.append(" ".join(parts))
            files.append(inside(out, str(Path(record.file).with_suffix(".idx"))))
            write_atomic(files[-1], ("\n".join(lines) + "\n").encode())
            stage.advance()
    return files
