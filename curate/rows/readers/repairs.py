"""Repairs: the sound rows of a CSV or TSV file in which a quotation mark is not closed."""

from __future__ import annotations

import csv
import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from curate.rows.readers.dialects import MAX_LINE_BYTES, Dialect, cells
from curate.rows.readers.encodings import opened_text

NOT_UTF8, NO_ROW = "not UTF-8", "not a row of the table"


def write_sound_rows(path: Path, dialect: Dialect, out: Path) -> dict[str, int]:
    """Copy a file as UTF-8 without its header and without lines that are no rows; return reason → number of these.

    A quotation mark that is not closed costs its own line, and not the lines after it.
    """
    lost: Counter[str] = Counter()
    with opened_text(path) as lines, open(out, "wb") as sound:
        for _, row, reason in rows_of(lines, dialect):
            if reason:
                lost[reason] += 1
            else:
                sound.write(row.encode() + b"\n")
    return dict(lost)


def first_fault(path: Path, dialect: Dialect) -> tuple[int, str, str] | None:
    """Return number, text and reason of the first line that is no row; None if all are rows."""
    with opened_text(path) as lines:
        return next(
            ((number, row, reason) for number, row, reason in rows_of(lines, dialect) if reason), None
        )


def rows_of(lines: Iterable[str], dialect: Dialect) -> Iterator[tuple[int, str, str | None]]:
    r"""Yield each row: the number of its first line, its text, and the reason if it is none.

    A row whose quotation marks are escaped by backslashes, `"a \"big\" dog"`, is rewritten with doubled ones.
    """
    source = _Lines(lines)
    to_skip = not dialect.headless
    while (line := source.take()) is not None:
        if not line.strip("\r\n"):
            continue
        number = source.number
        row, reason = _row(line, source, dialect)
        if to_skip:
            to_skip = False
        else:
            yield number, row, reason


class _Lines:
    """Lines that can be given back."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._back: deque[str] = deque()
        self.number = 0  # of the line taken last, from 1

    def take(self) -> str | None:
        line = self._back.popleft() if self._back else next(self._lines, None)
        self.number += line is not None
        return line

    def give_back(self, lines: list[str]) -> None:
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)


def _row(line: str, source: _Lines, dialect: Dialect) -> tuple[str, str | None]:
    """Return the row that begins with a line, and the reason if it is none; a quoted cell may take further lines."""
    quote = dialect.quote
    taken = [line]
    if quote and quote in line:
        whole, size = _closes(line, dialect), len(line)
        while whole is None and size < MAX_LINE_BYTES and (more := source.take()) is not None:
            taken.append(more)
            size += len(more)
            if quote in more:
                whole = _closes(quote + more, dialect)  # it begins inside a quoted cell
        good = bool(whole) and _fits(next(cells(taken, dialect.delimiter, quote)), dialect)
    else:
        dividers = line.count(dialect.delimiter)
        good = dividers == dialect.width - 1 or (
            dividers == dialect.width and _fits(_split(line, dialect), dialect)
        )
    row = "".join(taken if good else taken[:1]).rstrip("\r\n")
    if not good:
        source.give_back(taken[1:])
        escaped = _with_backslashes(row, dialect)
        row, good = escaped or row, escaped is not None
    if not row.isascii() and any("\ud800" <= c <= "\udfff" for c in row):
        return row, NOT_UTF8
    return row, None if good else NO_ROW


def _split(line: str, dialect: Dialect) -> list[str]:
    return line.rstrip("\r\n").split(dialect.delimiter)


def _fits(row: list[str], dialect: Dialect) -> bool:
    """Tell whether a row has the right number of cells; DuckDB allows one more at the end if it is empty."""
    return len(row) == dialect.width or (len(row) == dialect.width + 1 and not row[-1])


def _closes(line: str, dialect: Dialect) -> bool | None:
    """Tell whether a line ends its row: None if a quoted cell goes on, False if a quotation mark is misplaced."""
    try:
        next(cells([line], dialect.delimiter, dialect.quote, strict=True))
    except csv.Error as error:
        return None if "unexpected end" in str(error) else False
    return True


def _with_backslashes(row: str, dialect: Dialect) -> str | None:
    """Return a row whose quotation marks are escaped by backslashes with doubled marks; None if it is none."""
    quote = dialect.quote
    if not quote or "\\" + quote not in row:
        return None
    form = {"delimiter": dialect.delimiter, "quotechar": quote}
    try:
        fields = next(csv.reader([row], strict=True, doublequote=False, escapechar="\\", **form))  # type: ignore[arg-type]
    except csv.Error:
        return None
    if not _fits(fields, dialect):
        return None
    out = io.StringIO()
    csv.writer(out, lineterminator="", **form).writerow(fields)  # type: ignore[arg-type]
    return out.getvalue()
