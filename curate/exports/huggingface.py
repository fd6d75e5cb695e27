"""For Hugging Face `datasets` and its hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate.cards import card
from curate.datasets import CARD, MANIFEST, Dataset, DatasetInfo
from curate.exports import sidecar
from curate.exports._contents import contents
from curate.exports._features import card_fields
from curate.files import write_atomic
from curate.progress import Quiet


@sidecar(use='datasets.load_dataset("{path}", split="train")')
def huggingface(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write the card `README.md` with the type of every field and the names of the classes.

    Without them `datasets` takes the first five samples for what all are like, so that sets of JPEGs and PNGs, or
    with captions on some rows only, do not load. All rows are its `train`; a row's own split is in `json`.
    """
    write_atomic(out / CARD, card(dataset.info, fields(dataset.info, str(dataset.path / MANIFEST))).encode())
    return [out / CARD]


def fields(info: DatasetInfo, manifest: str | Path) -> list[dict[str, Any]]:
    """Return the fields of a sample of the shards, for `card`."""
    return card_fields(contents(manifest).members, info.columns, info.classes)
