"""For Hugging Face `datasets` and its hub."""

from __future__ import annotations

from pathlib import Path

from curate.datasets.cards import card
from curate.datasets.dataset import CARD, Dataset, DatasetInfo
from curate.datasets.exports import sidecar
from curate.datasets.exports._contents import contents
from curate.datasets.exports._features import card_fields
from curate.io.files import write_atomic
from curate.io.progress import Quiet


@sidecar(use='datasets.load_dataset("{path}", split="train")')
def huggingface(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write the card `README.md` with the type of every field and the names of the classes.

    Without them `datasets` takes the first five samples for what all are like, so that sets of JPEGs and PNGs, or
    with captions on some rows only, do not load. All rows are its `train`; a row's own split is in `json`.
    """
    write_atomic(out / CARD, described(dataset.info, str(dataset.manifest)).encode())
    return [out / CARD]


def described(info: DatasetInfo, manifest: str | Path) -> str:
    """Return the card of a dataset: of shards with the fields of a sample, of an overlay without."""
    found = contents(manifest)
    fields = card_fields(found.members, info.columns, info.classes) if info.shards is not None else None
    return card(info, found.splits, fields)
