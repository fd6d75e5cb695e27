"""A page of thumbnails: a few samples of every class, as the set has them."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

from curate.datasets.dataset import Dataset, open_dataset
from curate.datasets.summary import Summary, notes, summarize
from curate.errors import DataError, first_line
from curate.io.files import write_atomic
from curate.io.image_headers import BadImage
from curate.io.images import decode

THUMBNAIL_PX = 96
CLASSES_SHOWN = 100

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;color:#1d2430}
h1{font-size:1.6rem;margin-bottom:.2rem} h2{font-size:1.05rem;margin:1.6rem 0 .4rem} .dim{color:#69727f}
.row{display:flex;flex-wrap:wrap;gap:.5rem} figure{margin:0;width:104px}
figure img,.broken{width:96px;height:96px;object-fit:contain;background:#eef1f5;
 border-radius:6px;border:3px solid transparent}
.wrong img{border-color:#d64545} figcaption{font-size:.72rem;color:#69727f;overflow-wrap:anywhere;line-height:1.25}
.broken{display:flex;align-items:center;justify-content:center;font-size:.7rem;color:#d64545;text-align:center}
table{border-collapse:collapse;margin:.6rem 0}
td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #e3e7ed}
code{background:#eef1f5;padding:.1rem .3rem;border-radius:4px}
"""


def write_gallery(path: str | Path, *, per_class: int = 8) -> Path:
    """Write `gallery.html` into a dataset's folder and return its path.

    A red frame marks a label that is not the true one; an image that cannot be decoded shows its reason.

    Raises:
        RecipeError: there is no dataset.
    """
    dataset = open_dataset(path)
    page = Path(path) / "gallery.html"
    write_atomic(page, _page(dataset, summarize(path), per_class).encode())
    return page


def _page(dataset: Dataset, summary: Summary, per_class: int) -> str:
    steps = "".join(
        f"<tr><td>{html.escape(s['step'])}<td>{s['rows_out']:,}<td>{s['classes_out']:,}<td>{s['labels_changed']:,}"
        f"<td>{html.escape(notes(s))}</tr>"
        for s in summary.ledger
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(summary.name)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(summary.name)}</h1><p class=dim>{summary.rows:,} samples, {len(summary.counts):,} classes, "
        f"{summary.bytes / 1e6:,.1f} MB. <code>{html.escape(summary.digest[:19])}…</code></p>"
        f"<table><tr><th>step<th>rows<th>classes<th>labels changed<th>notes</tr>{steps}</table>"
        + "".join(_class(dataset, name, rows) for name, rows in _chosen(dataset, per_class))
    )


def _chosen(dataset: Dataset, per_class: int) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the first rows of each class, in the manifest's order."""
    import duckdb

    wanted = ["key", "file", "offset", "size", "label", "caption", "clean_label"]
    with duckdb.connect() as con:
        con.register("found", dataset.table([c for c in wanted if c in dataset.info.columns]))
        con.execute("CREATE TABLE rows AS SELECT *, row_number() OVER () AS position FROM found")
        rows = con.sql(
            f"SELECT * FROM rows WHERE label IS NULL OR label < {CLASSES_SHOWN} "
            f"QUALIFY row_number() OVER (PARTITION BY label ORDER BY position) <= {per_class} ORDER BY label, position"
        ).to_arrow_table()
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        name = "no label" if row["label"] is None else dataset.classes[row["label"]].name
        groups.setdefault(name, []).append(row)
    return list(groups.items())


def _class(dataset: Dataset, name: str, rows: list[dict[str, Any]]) -> str:
    reader = dataset.reader()
    figures = []
    for row in rows:
        wrong = "clean_label" in row and row["clean_label"] != row["label"]
        caption = row["caption"] or row["key"]
        if wrong and row["clean_label"] is not None:
            caption = f"{caption} (truly {dataset.classes[row['clean_label']].name})"
        try:
            data = _thumbnail(reader.read(row["file"], row["offset"], row["size"]))
            image = f'<img alt="" src="data:image/jpeg;base64,{data}">'
        except (BadImage, DataError) as error:
            image = f"<div class=broken>{html.escape(first_line(error)[:80])}</div>"
        mark = " class=wrong" if wrong else ""
        figures.append(f"<figure{mark}>{image}<figcaption>{html.escape(caption)}</figcaption></figure>")
    return f"<h2>{html.escape(name)}</h2><div class=row>{''.join(figures)}</div>"


def _thumbnail(data: bytes) -> str:
    image = decode(data)
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
