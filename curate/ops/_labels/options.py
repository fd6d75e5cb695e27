"""Options that belong to one of several choices of an operation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curate.errors import RecipeError


def one_choice(operation: str, choices: Mapping[str, Any]) -> str:
    """Return the name of the one choice that is given.

    Raises:
        RecipeError: none is given, or several are.
    """
    given = [name for name, value in choices.items() if value is not None]
    if len(given) != 1:
        *names, last = (f"`{name}`" for name in choices)
        others = f", not {' and '.join(given)}" if given else ""
        raise RecipeError(f"{operation} takes one of {', '.join(names)} and {last}{others}")
    return given[0]


def reject_unknown_options(choice: str, takes: tuple[str, ...], given: Mapping[str, Any]) -> None:
    """Refuse options that do not belong to a choice.

    Args:
        choice: as a recipe says it: `cut: depth`.
        takes: the options that belong to it.
        given: option → its value, None where the recipe does not give it.

    Raises:
        RecipeError: another option is given.
    """
    strangers = [name for name, value in given.items() if value is not None and name not in takes]
    if strangers:
        raise RecipeError(
            f"option {strangers[0]!r} does not belong to `{choice}`",
            hint=f"it takes {', '.join(takes)}" if takes else "it takes no further options",
        )
