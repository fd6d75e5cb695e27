"""Options that cannot be meant, refused before anything is read."""

from __future__ import annotations

from typing import Any, get_args

from curate.errors import RecipeError, did_you_mean


def require(ok: bool, name: str, value: object, must: str) -> None:
    """Refuse the value of an option unless it is good.

    Raises:
        RecipeError: it is not.
    """
    if not ok:
        raise RecipeError(f"{name} is {value}", hint=f"it must be {must}")


def require_one_of(kind: Any, name: str, value: str) -> None:
    """Refuse a word that is not among those of a `Literal`.

    Raises:
        RecipeError: it is not.
    """
    if value not in (words := get_args(kind)):
        hint = did_you_mean(str(value), words) or f"it must be one of: {', '.join(words)}"
        raise RecipeError(f"{name} is {value!r}", hint=hint)
