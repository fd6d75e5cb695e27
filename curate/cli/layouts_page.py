"""The published layouts as a page of the docs, told from the list itself."""

from __future__ import annotations

from curate.sources.table.layouts.layout import COLUMNS, ColumnExpr, TableLayout
from curate.sources.table.layouts.published import LAYOUTS


def markdown() -> str:
    """Return the page: of each layout its set, its origin, its terms, the form of its files and its columns."""
    lines = [
        "# Layouts",
        "",
        "Generated from `curate/sources/table/layouts/published.py` by `make reference`.",
        "",
        "How sets of image links and texts are published, for `source: {table: PATHS, as: NAME}`. Whatever the layout, "
        f"a row gets {', '.join(f'`{c}`' for c in COLUMNS if c in ('url', 'caption'))} and, where the table tells, "
        f"{', '.join(f'`{c}`' for c in COLUMNS if c not in ('url', 'caption'))}. Columns of the table that are not "
        "named here are carried along, their names in lower case; one that begins with `_`, or would be taken "
        "for a core column, is called `table_NAME`. The case of column names does not matter. If several names are "
        "given, releases differ, and the first that exists is used. A caption that is a list of texts becomes "
        "`captions`, and its first text the caption.",
        "",
        "`as: auto`, the default, recognises a layout by the columns under *known by*. It reads any other table by "
        "usual names (`url`, `image_url`, …; `caption`, `text`, …), and two columns without a header line by which "
        "of them holds links.",
        "",
        "Terms are as the publishers state them; the images belong to others.",
        "",
        "| layout | set |",
        "|---|---|",
        *(f"| [{x.name}](#{x.name}) | {x.about.partition(':')[0].partition(';')[0]} |" for x in LAYOUTS),
        "",
    ]
    for layout in LAYOUTS:
        lines += _section(layout)
    return "\n".join(lines).rstrip() + "\n"


def _section(layout: TableLayout) -> list[str]:
    known = "; ".join(", ".join(f"`{n}`" for n in names) for names in layout.signatures)
    return [
        f"## {layout.name}",
        "",
        f"{layout.about[0].upper()}{layout.about[1:]}.",
        "",
        f"- from: {layout.origin}",
        f"- terms: {layout.terms}",
        f"- form: {_form(layout)}",
        f"- known by: {known or 'nothing: `as:` names it'}",
        "",
        "| ours | theirs |",
        "|---|---|",
        *(f"| `{ours}` | {_either(theirs)} |" for ours, theirs in layout.columns.items()),
        "",
    ]


def _form(layout: TableLayout) -> str:
    parts = []
    for header in layout.headers:
        parts.append(f"text without a header line, {len(header)} columns: {', '.join(header)}")
    if layout.delimiter:
        name = {"\t": "a tab", ",": "a comma"}.get(layout.delimiter, f"`{layout.delimiter}`")
        marks = f"`{layout.quote}` quotes" if layout.quote else "quotation marks are part of the text"
        parts.append(f"{name} between columns, {marks}")
    if layout.nested:
        inside = ", ".join(f"`{n}`" for n in layout.nested)
        parts.append(f"one JSON object a file with {inside}, or a row a pair")
    return "; ".join(parts) or "a row a pair, with named columns"


def _either(candidates: tuple[str | ColumnExpr, ...]) -> str:
    return ", else ".join(dict.fromkeys(map(_told, candidates)))


def _told(candidate: str | ColumnExpr) -> str:
    if isinstance(candidate, str):
        return f"`{candidate}`"
    names = candidate.needs or candidate.beside
    if not names:
        return "none"
    if len(names) > 1:
        return " and ".join(f"`{n}`" for n in names) + (", decoded" if "url_decode" in candidate.sql else "")
    return f"`{names[0]}`" + (", decoded" if "url_decode" in candidate.sql else "")


if __name__ == "__main__":
    print(markdown(), end="")
