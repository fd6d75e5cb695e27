"""Errors that people can act on, and checks that raise them. A message says what is wrong, where, and what to do.

Any other exception is a fault of this code and may show a traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Collection, Iterable
from typing import Any, get_args


class CurateError(Exception):
    """An error that a person can act on.

    Args:
        message: what is wrong and where, with the value.
        hint: what to do, as a sentence or a command.
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
    """The data is not what it should be (exit code 3)."""

    code = 3


class MissingError(CurateError):
    """A package, a file or a device is missing (exit code 4)."""

    code = 4


def located(error: CurateError, where: str) -> CurateError:
    """Return the same error with its location in front: "recipe.yaml, step 3 (noise): …"."""
    return type(error)(f"{where}: {error.message}", hint=error.hint)


def machine_error(error: Exception) -> MissingError | None:
    """Return an error of the disk, the memory or the file system as one to act on; None for any other exception.

    A full disk, a read-only folder or a file in place of a folder needs no traceback.
    """
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # numpy's, and torch's
        return MissingError("not enough memory on this machine", hint="ask for less at once")
    kind = type(error).__module__.strip("_").partition(".")[0], type(error).__name__
    if not isinstance(error, OSError) and kind not in _MACHINE:
        return None
    number = getattr(error, "errno", None)
    why = getattr(error, "strerror", None) or str(error).strip() or kind[1]
    names = (getattr(error, "filename", None), getattr(error, "filename2", None))
    paths = [str(name) for name in names if name]
    full = number in (errno.ENOSPC, errno.EDQUOT) or "space" in why.lower() or "is full" in why.lower()
    return MissingError(
        f"{' to '.join(paths)}: {why}" if paths else why,
        hint="make room, then run the same command"
        if full
        else _HINTS.get(number or 0, "see that the place is there, and may be read and written"),
    )


_MACHINE = {("duckdb", "IOException"), ("duckdb", "OutOfMemoryException"), ("sqlite3", "OperationalError")}
_HINTS = {
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "name another place, or ask for the right to this one",
    errno.EPERM: "name another place, or ask for the right to this one",
    errno.ENOTDIR: "a file stands where a folder is wanted: name another place",
    errno.EEXIST: "a file stands where a folder is wanted: name another place",
    errno.EISDIR: "a folder stands where a file is wanted: name another place",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), or write elsewhere",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
}


def printable(text: str) -> str:
    """Return an untrusted text without control codes of a terminal; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean 'x'?" for the nearest of `known`; None if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type where it has none; safe for a terminal."""
    return printable(str(error).split("\n")[0]) or type(error).__name__


def reject_unknown(name: object, known: Collection[Any], message: str, *, hint: str | None = None) -> None:
    """Refuse a name that is not among those known; the hint is the nearest of them.

    Args:
        message: what the error says.
        hint: where none is near; by default the list of all.

    Raises:
        RecipeError: the name is unknown.
    """
    if name not in known:
        near = did_you_mean(str(name), map(str, known))
        raise RecipeError(message, hint=near or hint or f"there are {', '.join(map(str, known)) or 'none'}")


def require(ok: bool, name: str, value: object, must: str) -> None:
    """Refuse the value of an option unless a condition holds.

    Raises:
        RecipeError: the condition is false.
    """
    if not ok:
        raise RecipeError(f"{name} is {value}", hint=f"it must be {must}")


def require_one_of(kind: Any, name: str, value: str) -> None:
    """Refuse a value that is not one of a `Literal`.

    Raises:
        RecipeError: the value is none of them.
    """
    words = get_args(kind)
    reject_unknown(value, words, f"{name} is {value!r}", hint=f"it must be one of: {', '.join(words)}")
