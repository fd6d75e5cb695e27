"""Names and texts that strangers wrote, as Markdown that shows them and does nothing else.

Terminals are `curate.errors.printable`'s, HTML is `html.escape`'s.
"""

from __future__ import annotations

import re

from curate.errors import printable

_SPECIAL = re.compile(r"[\\`*\[\]<>|~$#!]|&(?=#|\w+;)|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=w)\.|@")


def markdown(text: str) -> str:
    """Return a text in one line of Markdown, in which it shows as it is: no markup, links, HTML, cells or formulas.

    An underscore inside a word stays, as it does no more than that in Markdown either.
    """
    return _SPECIAL.sub(r"\\\g<0>", " ".join(printable(text).split()))


def code(text: str) -> str:
    """Return a text as a code span of Markdown; it may hold backticks."""
    shown = " ".join(printable(text).split())
    fence = "`" * (_longest_run(shown) + 1)
    inner = f" {shown} " if shown.startswith("`") or shown.endswith("`") else shown
    return f"{fence}{inner}{fence}"


def code_block(text: str, language: str = "") -> list[str]:
    """Return the lines of a code block of Markdown; the text may hold fences."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return [f"{fence}{language}", printable(text), fence]


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
