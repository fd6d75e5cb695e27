"""For Hugging Face `datasets` and its hub."""

from __future__ import annotations

from pathlib import Path

from curate.datasets.cards import write_card
from curate.datasets.dataset import CARD, Dataset
from curate.datasets.exports import sidecar
from curate.io.progress import Quiet


@sidecar(use='datasets.load_dataset("{path}", split="train")')
def huggingface(dataset: Dataset, out: Path, progress: Quiet) -> list[Path]:
    """Write the card `README.md` with the type of every field and the names of the classes.

    Without them `datasets` takes the first five samples for what all are like, so that sets of JPEGs and PNGs, or
    with captions on some rows only, do not load. All rows are its `train`; a row's own split is in `json`.
    """
    write_card(out, dataset.info, dataset.manifest)
    return [out / CARD]
