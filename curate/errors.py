"""What goes wrong for people, told in three parts: what, where, what next.

Anything else that is raised is a fault of ours and may show a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CurateError(Exception):
    """An error a person can act on.

    Args:
        message: what is wrong and where, with the value.
        hint: what to do next, as a sentence or a command.
    """

    code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class RecipeError(CurateError):
    """The recipe or the command line is wrong (exit code 2)."""

    code = 2


class DataError(CurateError):
    """The data is not what it was said to be (exit code 3)."""

    code = 3


class MissingError(CurateError):
    """Something that is needed is not there: a package, a file, a device (exit code 4)."""

    code = 4


def printable(text: str) -> str:
    """Return a text that a terminal can be shown: what strangers wrote may hold its control codes.

    Line breaks and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean 'x'?" for the nearest of `known`, or None."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None
