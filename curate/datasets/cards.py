"""The card: what a dataset is, for whoever finds its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from curate.datasets.dataset import CARD, MANIFEST, SHARDS, DatasetInfo
from curate.datasets.exports._contents import card_fields, contents
from curate.io.files import write_atomic
from curate.io.markdown import code, code_block, markdown
from curate.io.paths import AnyPath, local_copy


def write_card(folder: Path, info: DatasetInfo, manifest: AnyPath) -> None:
    """Write the card of a dataset: of shards with the fields of a sample, of an overlay without."""
    with local_copy(manifest) as file:
        samples = contents(file)
    fields = None if info.shards is None else card_fields(samples.members, info.columns, info.classes)
    write_atomic(folder / CARD, card(info, samples.splits, fields).encode())


def card(info: DatasetInfo, splits: dict[str, int], fields: list[dict[str, Any]] | None = None) -> str:
    """Return a dataset's card as Markdown, opened by what the Hugging Face hub and `load_dataset(PATH)` read.

    Args:
        splits: split → rows.
        fields: the fields of a sample in the shards, as `datasets` names them; without, it guesses them from the
            first five samples, and labels are numbers without names.
    """
    lines = [
        "---",
        yaml.safe_dump(_front(info, fields), sort_keys=False, allow_unicode=True, width=110).rstrip(),
        "---",
        "",
        f"# {markdown(info.name)}",
        "",
        f"{info.rows:,} samples, {len(info.classes):,} classes, {info.bytes / 1e6:,.1f} MB of images. "
        f"Digest {code(info.digest)}.",
        "",
        *_mixed(splits),
        "## How it was made",
        "",
        *code_block(
            yaml.safe_dump(info.recipe, sort_keys=False, allow_unicode=True, width=110).rstrip(), "yaml"
        ),
        "",
        "## What each step did",
        "",
        "| step | rows | classes | labels changed | captions changed | columns added |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for record in info.ledger:
        counts = (record.rows_out, record.classes_out, record.labels_changed, record.captions_changed)
        added = ", ".join(map(markdown, record.columns_added))
        lines.append(f"| {' | '.join([markdown(record.step), *(f'{n:,}' for n in counts), added])} |")
    lines += [f"- {markdown(f'{record.step}: {note}')}" for record in info.ledger for note in record.notes]
    classes = [
        markdown(f"{c.index} {c.name}" + (f" ({c.wnid})" if c.wnid else "")) for c in info.classes[:30]
    ]
    if classes:
        more = f", and {len(info.classes) - 30:,} more" if len(info.classes) > 30 else ""
        lines += ["", "## Classes", "", ", ".join(classes) + more]
    return "\n".join(lines) + "\n"


def _mixed(splits: dict[str, int]) -> list[str]:
    """Return the paragraph that warns who takes `train` for the training rows alone."""
    if len(splits) < 2:
        return []
    counted = ", ".join(f"{markdown(name)} {rows:,}" for name, rows in splits.items())
    warning = f"What loads as `train` holds the rows of all splits ({counted}): filter by `split` (in shards it is in "
    return [warning + "`.json`), or keep them apart with `curate export --to parquet`.", ""]


def _front(info: DatasetInfo, fields: list[dict[str, Any]] | None) -> dict[str, Any]:
    captioned = any(field["name"] == "txt" for field in fields or [])
    tasks = ["image-classification"] * bool(info.classes) + ["image-to-text", "text-to-image"] * captioned
    # An overlay has no images to load, so that what loads is its manifest.
    files = MANIFEST if info.shards is None else f"{SHARDS}/*.tar"
    front: dict[str, Any] = {
        "pretty_name": info.name,
        **({"task_categories": tasks} if tasks else {}),
        "size_categories": [_size(info.rows)],
        "tags": ["curate", *(["webdataset"] if info.shards is not None else [])],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    }
    return front | ({"dataset_info": {"config_name": "default", "features": fields}} if fields else {})


def _size(rows: int) -> str:
    """Return the hub's word for a number of rows: `10K<n<100K`."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
    place = sum(rows >= 10 ** (3 + i) for i in range(len(bounds)))
    if place == 0:
        return "n<1K"
    return f"{bounds[place - 1]}<n<{bounds[place]}" if place < len(bounds) else "n>1T"
