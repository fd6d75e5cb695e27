"""Arguments for every operation, which the laws are tested with: a new operation needs an entry here."""

from __future__ import annotations

from typing import Any, NamedTuple


class Example(NamedTuple):
    """Arguments that an operation takes, for the laws.

    Args:
        arguments: as a recipe would give them; a file is looked for beside this one.
        row_wise: whether each row's fate depends on that row alone.
        columns: column → SQL over `i` (the row's number) and the core columns, that the source gets besides.
        before: steps to run first.
    """

    arguments: dict[str, Any]
    row_wise: bool = False
    columns: dict[str, str] = {}  # noqa: RUF012
    before: tuple[tuple[str, dict[str, Any]], ...] = ()


EXAMPLES: dict[str, list[Example]] = {
    "caption": [
        Example({"templates": ["a photo of a {}.", "art of the {}"]}, row_wise=True),
        Example({"templates": "openai-80"}, row_wise=True),
    ],
    "classes": [
        Example({"number": 4}, row_wise=True),
        Example({"names": ["dog", "n01440764"]}, row_wise=True),
        Example({"below": ["n00015388"]}, row_wise=True),
    ],
    "noise": [Example({"rate": 0.3}), Example({"rate": 0.0}), Example({"rate": 1.0})],
    "per_class": [
        Example({"images": 40}),
        Example({"images": 99, "short": "keep"}),
        Example({"images": 99, "short": "drop"}),
    ],
    "relabel": [
        Example(
            {"map": {"n02084071": "n00015388", "n02121620": "n00015388"}, "others": "keep"}, row_wise=True
        ),
        Example({"map": {"dog": "pet", "cat": "pet"}, "others": "drop"}, row_wise=True),
    ],
    "sample": [Example({"number": 100}), Example({"fraction": 0.25})],
    "where": [Example({"condition": "width >= 64 AND split = 'train'"}, row_wise=True)],
}
