"""Errors in the words that a person reads."""

from __future__ import annotations

import pytest

from curate.errors import first_line


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("IO Error: no such file\n\nLINE 1: FROM …\n        ^", "IO Error: no such file"),
        ("red \x1b[31mtext", "red \\x1b[31mtext"),
        ("", "ValueError"),
    ],
)
def test_of_an_error_of_many_lines_the_first_is_told_and_is_safe_for_a_terminal(
    message: str, told: str
) -> None:
    assert first_line(ValueError(message)) == told
