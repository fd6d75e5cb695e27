"""Markdown that shows untrusted names and texts as they are.

`curate.errors.printable` does the same for terminals, and `html.escape` for HTML.
"""

from __future__ import annotations

import re

from curate.errors import printable

_SPECIAL = re.compile(r"[\\`*\[\]<>|~$#!]|&(?=#|\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=w)\.|@")


def markdown(text: str) -> str:
    """Return a text as one line of Markdown without markup, links, HTML, table cells or formulas.

    An underscore inside a word stays, since Markdown gives it no meaning.
    """
    return _SPECIAL.sub(r"\\\g<0>", " ".join(printable(text).split()))


def code(text: str) -> str:
    """Return a text as a code span of Markdown; it may hold backticks."""
    line = " ".join(printable(text).split())
    fence = "`" * (_longest_run(line) + 1)
    inner = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{inner}{fence}"


def code_block(text: str, language: str = "") -> list[str]:
    """Return the lines of a code block of Markdown; the text may hold fences."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return [f"{fence}{language}", printable(text), fence]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
