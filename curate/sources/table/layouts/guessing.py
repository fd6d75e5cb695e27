"""Which layout a table has: by name, by the names of its columns, or by what stands in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from curate.errors import RecipeError, printable
from curate.sources.table.layouts.layout import COLUMNS, ColumnExpr, TableLayout
from curate.sources.table.layouts.published import LAYOUTS

LINKS = 0.9  # share of a column's values that begin with http, from which it holds the URLs


@dataclass(frozen=True)
class Guess:
    """What `auto` took a table for.

    Args:
        layout: the one it looks like, or one made of the names of its columns.
        why: which columns said so.
    """

    layout: TableLayout
    why: str


URLS = ("url", "image_url", "img_url", "imageurl", "image", "link", "src", "downloadurl", "photo_url")
CAPTIONS = (
    "caption", "text", "alt_text", "alt", "title", "description", "sentence", "raw_caption", "txt", "captions",
)  # fmt: skip


def names() -> list[str]:
    """Return the names of all layouts."""
    return [layout.name for layout in LAYOUTS]


def find(name: str) -> TableLayout:
    """Return a layout by name."""
    return next(layout for layout in LAYOUTS if layout.name == name)


def guess(there: Collection[str], *, where: str) -> Guess:
    """Return the layout that a table's columns look like: the published one that names most of them, or by usual names.

    Raises:
        RecipeError: no column looks like a URL or a text.
    """
    known = {name.lower(): name for name in there}
    fitting = [
        (signature, layout)
        for layout in LAYOUTS
        if not known.keys() & {n.lower() for n in layout.unlike}
        for signature in layout.signatures
        if known.keys() >= {n.lower() for n in signature}
    ]
    if fitting:
        signature, layout = max(fitting, key=lambda fit: len(fit[0]))
        return Guess(layout, f"layout {layout.name!r} by its columns {', '.join(signature)}")
    usual = {"url": URLS, "caption": CAPTIONS}
    found = {column: [known[n] for n in every if n in known][:1] for column, every in usual.items()}
    if lacking := [c for c in usual if not found[c]]:
        raise RecipeError(
            f"{where}: no column looks like the {lacking[0]}; it has {printable(', '.join(there))}",
            hint=f"`as:` names the layout: {', '.join(names())}",
        )
    # Other files of the table may have another of the usual names.
    columns: dict[str, tuple[str | ColumnExpr, ...]] = {
        c: tuple(dict.fromkeys((*found[c], *usual[c]))) for c in usual
    }
    taken = {name for one in found.values() for name in one}
    columns |= {c: (known[c],) for c in COLUMNS if c in known and c not in columns and known[c] not in taken}
    said = ", ".join(f"{column} from {name!r}" for column, (name, *_) in columns.items())
    return Guess(TableLayout("auto", "", "", "", columns), f"no published layout; {said}")


def guess_headerless(sample: Sequence[Sequence[str | None]], *, where: str) -> Guess:
    """Return the layout of a text file without a header line, by what stands in its columns.

    Of two columns the one with the URLs is the URL and the other the caption, whichever comes first. More are taken
    for the published layout that has as many and its URLs in the same place.

    Args:
        sample: some rows.
        where: the file, for messages.

    Raises:
        RecipeError: no column holds URLs, or it cannot be told what the others hold.
    """
    width = max(map(len, sample), default=0)
    urls = [sum(_is_url(row[i]) for row in sample if i < len(row)) for i in range(width)]
    links = [i for i, count in enumerate(urls) if count >= LINKS * len(sample)]
    if width == 2 and len(links) == 1:
        order = ("url", "caption") if links == [0] else ("caption", "url")
        columns = {"url": ("url",), "caption": ("caption",)}
        made = TableLayout("auto", "", "", "", columns, headers=(order,))
        return Guess(made, f"no header line; column {links[0] + 1} of 2 holds the URLs")
    if width == 1 and links:
        raise RecipeError(
            f"{where}: each line is a URL and nothing else; a row needs a text, too",
            hint="two columns under a first line `url,caption`; a URL with commas stands in quotes",
        )
    for layout in LAYOUTS:
        for header in layout.headers:
            urls = [i for i, n in enumerate(header) if n in layout.columns["url"]]
            if len(header) == width > 2 and urls and urls[0] in links:
                return Guess(layout, f"no header line; layout {layout.name!r} by its {width} columns")
    there = f"URLs stand in columns {', '.join(str(i + 1) for i in links)}"
    holds = there if links else "none of them holds URLs"
    raise RecipeError(
        f"{where}: {width} columns and no header line; {holds}",
        hint=f"a first line with url and caption says which is which, or `as:` names the layout: {', '.join(names())}",
    )


def _is_url(cell: str | None) -> bool:
    return (cell or "").lstrip().lower().startswith(("http://", "https://"))
