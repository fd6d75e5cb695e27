"""How a text file with columns is written: what divides and quotes its cells, and what its columns are called."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from curate.errors import DataError
from curate.rows.readers.encodings import ending, opened_text

SAMPLE_LINES = 2_000  # looked at
MAX_LINE_BYTES = 32 << 20
LISTED = 0.9  # share of lines that are a URL and nothing else, from which a file is a list of them

_NOWHERE = "\x01"
_URL = re.compile(r"https?://[!#-~]+", re.IGNORECASE)  # no blank, no quotation mark, ASCII alone
_IMAGE = re.compile(r"[^,]+\.(jpe?g|png|gif|webp|bmp|tiff?)(\?[^,]*)?,", re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How a file is written, as its first lines show.

    Args:
        delimiter: between cells; of a list of URLs a character that no URL has.
        quote: the quotation mark; empty where quotes are part of the text.
        header: the names of the columns; those of a file without a header line are made up.
        headless: whether it has none.
        blank: empty lines before the first.
    """

    delimiter: str
    quote: str
    header: tuple[str, ...]
    headless: bool
    blank: int = 0

    @property
    def width(self) -> int:
        """How many cells a row has."""
        return len(self.header)


def dialect(path: Path, *, delimiter: str | None = None, quote: str | None = None) -> Dialect:
    """Return how a CSV or TSV file is written.

    Tabs divide a `.tsv`. In other files the first line tells: a tab, a semicolon or a bar, where it has no comma.
    A first line with a URL is no header. A file whose lines are URLs alone has one column, whatever they hold.

    Args:
        delimiter: between cells, where that is known.
        quote: the quotation mark, where that is known.

    Raises:
        DataError: the file is empty, or in no encoding that can be told.
    """
    status = path.stat()
    return _dialect(path, status.st_mtime_ns, status.st_size, delimiter, quote)


@lru_cache(maxsize=64)
def _dialect(path: Path, _time: int, _size: int, delimiter: str | None, quote: str | None) -> Dialect:
    with opened_text(path) as stream:
        lines = list(itertools.islice(stream, SAMPLE_LINES))
    blank = sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), lines))
    lines = lines[blank:]
    if not lines:
        raise DataError(f"{path}: is empty", hint="fetch it again")
    if _lists_urls(lines):
        return Dialect(_NOWHERE, "", ("column0",), True, blank)
    if delimiter is None:
        delimiter = "\t" if ending(path) == "tsv" else _delimiter(lines[0])
    if quote is None:
        quote = _quote(lines) if delimiter == "\t" else '"'
    first: list[str] = next(cells(lines, delimiter, quote), [])
    # No column is called by a URL.
    headless = any(cell.lower().startswith(("http://", "https://")) for cell in first)
    return Dialect(delimiter, quote, _named([] if headless else first, len(first)), headless, blank)


def lines_of(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a small CSV or TSV file, the header too, as they stand, with the number of their last line.

    Raises:
        DataError: a row is none, by its line; the file is empty or not UTF-8.
    """
    path = Path(path)
    found = dialect(path)
    with opened_text(path) as stream:
        try:
            reader = cells(stream, found.delimiter, found.quote, strict=True)
            for row in reader:
                "".join(row).encode()
                if row:
                    yield reader.line_num, row
        except (csv.Error, UnicodeEncodeError) as error:
            told = "not UTF-8" if isinstance(error, UnicodeEncodeError) else str(error)
            raise DataError(
                f"{path}, line {reader.line_num}: not a row of the table ({told})",
                hint='a quotation mark inside a quoted cell is written twice, `""`; texts are UTF-8',
            ) from None


def texts_of(path: str | Path) -> Iterator[str]:
    """Yield the lines of a small text file that are not blank, without blanks around them.

    Raises:
        DataError: a line is not UTF-8, by its number.
    """
    with opened_text(Path(path)) as stream:
        for number, line in enumerate(stream, start=1):
            if any("\ud800" <= c <= "\udfff" for c in line):
                raise DataError(f"{path}, line {number}: not UTF-8", hint="save it as UTF-8")
            if line.strip():
                yield line.strip()


def cells(lines: Iterable[str], delimiter: str, quote: str, *, strict: bool = False) -> Any:
    """Return a `csv.reader` of rows.

    Args:
        strict: whether what is odd about a quotation mark is an error.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    if not quote:
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, quotechar=quote, strict=strict)


def _lists_urls(lines: Sequence[str]) -> bool:
    """Whether lines are URLs alone, and a comma in them divides nothing.

    `https://a/1.jpg,dog` is a URL and a word: its first part ends as an image's does.
    """
    told = [line.strip() for line in lines if line.strip()]
    if sum(bool(_URL.fullmatch(line)) for line in told) < LISTED * len(told):
        return False
    return sum(bool(_IMAGE.match(line)) for line in told) < LISTED * len(told)


def _delimiter(header: str) -> str:
    if header.count("\t") > header.count(","):
        return "\t"
    return "," if "," in header else next((mark for mark in ";|" if mark in header), ",")


def _quote(lines: Sequence[str]) -> str:
    """Return the quotation mark of cells between tabs, which need none: most sets have none."""
    cells = [cell for line in lines for cell in line.rstrip("\r\n").split("\t") if '"' in cell]
    begun = [c for c in cells if c.startswith('"')]
    return '"' if begun and all(len(c) > 1 and c.endswith('"') for c in begun) else ""


def _named(cells: Sequence[str], width: int) -> tuple[str, ...]:
    """Return names for columns of which no two are alike in lower case, as DuckDB would make them."""
    digits = len(str(max(width - 1, 0)))
    names: list[str] = []
    taken: set[str] = set()
    times: dict[str, int] = {}
    for i in range(width):
        name = (cells[i].strip() if i < len(cells) else "") or f"column{i:0{digits}}"
        while name.lower() in taken:
            times[name.lower()] = times.get(name.lower(), 0) + 1
            name = f"{name}_{times[name.lower()]}"
        taken.add(name.lower())
        names.append(name)
    return tuple(names)
