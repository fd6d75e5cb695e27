"""One HTML page with the figures inside it, PNG files and Markdown tables beside it."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from curate.io.files import write_atomic
from curate.io.markdown import markdown
from train.reports import tables
from train.reports.figures import draw_all
from train.reports.findings import Findings, gather
from train.reports.tables import ReportTable

WIDE = 12  # columns, more of which do not fit a page

_STYLE = """
body{font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:#1d2430;
 margin:2.2rem auto;max-width:1120px;padding:0 1.2rem}
h1{font-size:1.75rem;margin:0 0 .2rem} h2{font-size:1.2rem;margin:2.4rem 0 .5rem}
.dim{color:#69727f;font-size:.88rem} .scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.88rem;min-width:60%}
th{text-align:left;vertical-align:bottom;color:#465061;font-weight:600}
td,th{padding:.34rem .8rem .34rem 0;border-bottom:1px solid #e3e7ed;font-variant-numeric:tabular-nums}
td.number,th.number{text-align:right} tr:hover td{background:#f6f8fa}
figure{margin:1.4rem 0} figure img{max-width:100%} figcaption{color:#69727f;font-size:.86rem}
"""


def write_report(root: str | Path, out: str | Path | None = None) -> tuple[Path, Findings]:
    """Write the report of what was measured below a folder; return its page and what it tells.

    Beside `index.html`, which holds everything, stand the figures as PNG and the tables as `report.md`.

    Args:
        root: an experiment's folder, or any folder with runs and results.
        out: where to write; `root/report` by default.

    Raises:
        RecipeError: there is nothing to report.
    """
    findings = gather(root)
    folder = Path(out) if out else Path(root) / "report"
    figures = draw_all(findings, folder)
    first = tables.headline(findings)
    first = first if len(first.columns) <= WIDE else first.transposed()
    shown = [t for t in (first, tables.gaps(findings)) if t.rows]
    detail = [t for t in (tables.datasets(findings), tables.runs(findings)) if t.rows]
    write_atomic(folder / "report.md", _markdown(findings, shown + detail, figures).encode())
    page = folder / "index.html"
    write_atomic(page, _page(findings, shown, figures, detail).encode())
    return page, findings


def _page(
    findings: Findings, first: list[ReportTable], figures: list[tuple[Path, str]], last: list[ReportTable]
) -> str:
    title = html.escape(findings.title)
    seen = (
        f"{len(findings.datasets)} datasets, {len(findings.runs)} runs, {len(findings.summary)} measurements"
    )
    pictures = "".join(
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for path, caption in figures
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in findings.notes)
    return (
        f'<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p class=dim>{seen}</p>{notes}"
        f"{''.join(map(_table, first[:1]))}{pictures}{''.join(map(_table, [*first[1:], *last]))}</html>"
    )


def _table(table: ReportTable) -> str:
    numeric = [
        bool(table.rows) and all(_is_number(row[j]) for row in table.rows) for j in range(len(table.columns))
    ]
    mark = [" class=number" if n else "" for n in numeric]
    head = "".join(f"<th{m}>{html.escape(c)}" for m, c in zip(mark, table.columns, strict=True))
    body = ""
    for i, row in enumerate(table.rows):
        cells = [html.escape(c) for c in row]
        cells = [f"<b>{c}</b>" if (i, j) in table.best else c for j, c in enumerate(cells)]
        body += "<tr>" + "".join(f"<td{m}>{c}" for m, c in zip(mark, cells, strict=True))
    note = f"<p class=dim>{html.escape(table.note)}</p>" if table.note else ""
    return f"<h2>{html.escape(table.title)}</h2><div class=scroll><table><tr>{head}{body}</table></div>{note}"


def _is_number(cell: str) -> bool:
    return not cell.strip("–0123456789.,+-± ")


def _markdown(findings: Findings, shown: list[ReportTable], figures: list[tuple[Path, str]]) -> str:
    pictures = "\n\n".join(f"![{caption}]({path.name})" for path, caption in figures)
    head = [f"# {markdown(findings.title)}", "", *[f"{markdown(note)}\n" for note in findings.notes]]
    first, *others = [table.markdown() for table in shown] or [""]
    return "\n".join([*head, first, pictures, "", *others])
