"""The card: what a dataset is, for whoever finds its folder."""

from __future__ import annotations

import yaml

from curate.datasets import DatasetInfo


def card(info: DatasetInfo) -> str:
    """Return a dataset's card as Markdown."""
    lines = [
        f"# {info.name}",
        "",
        f"{info.rows:,} samples, {len(info.classes):,} classes, {info.bytes / 1e6:,.1f} MB of images. "
        f"Digest `{info.digest}`.",
        "",
        "## How it was made",
        "",
        "```yaml",
        yaml.safe_dump(info.recipe, sort_keys=False, allow_unicode=True, width=110).rstrip(),
        "```",
        "",
        "## What each step did",
        "",
        "| step | rows | classes | labels changed | captions changed | columns added |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for record in info.ledger:
        cells = [record.step, f"{record.rows_out:,}", f"{record.classes_out:,}", f"{record.labels_changed:,}"]
        lines.append(
            f"| {' | '.join([*cells, f'{record.captions_changed:,}', ', '.join(record.columns_added)])} |"
        )
    lines += [f"- {record.step}: {note}" for record in info.ledger for note in record.notes]
    shown = [f"{c.index} {c.name}" + (f" ({c.wnid})" if c.wnid else "") for c in info.classes[:30]]
    if shown:
        more = f", and {len(info.classes) - 30:,} more" if len(info.classes) > 30 else ""
        lines += ["", "## Classes", "", ", ".join(shown) + more]
    return "\n".join(lines) + "\n"
