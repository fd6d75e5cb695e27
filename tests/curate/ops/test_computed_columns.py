"""`compute`: columns from SQL over one row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from curate.errors import RecipeError
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]


def test_columns_follow_from_the_row(source: Source, apply: Apply, content: Callable[..., list[Any]]) -> None:
    added = {"filename": "split_part(key, '/', 2) || '.JPEG'", "caption": "'a ' || split"}
    rows = content(apply("compute", source(3), columns=added))
    assert [(r["filename"], r["caption"]) for r in rows] == [
        ("0000000.JPEG", "a val"),
        ("0000001.JPEG", "a train"),
        ("0000002.JPEG", "a train"),
    ]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": "label + 1"}, "column 'label' cannot be set"),
        ({"Key": "'a' || split"}, "column 'key' cannot be set"),
        ({"file": "'/etc/passwd' || key"}, "column 'file' cannot be set"),
        ({"_drawn": "label > 1"}, "begin with _"),
        ({"x": "random() * width"}, "depends on when or where it runs"),
        ({"x": "(SELECT max(width) FROM source)"}, "a query of its own"),
        ({"x": "widht"}, "no column 'widht'(?s:.*)did you mean 'width'"),
        ({}, "the mapping is empty"),
    ],
)
def test_what_is_no_column_of_the_row_is_refused(
    source: Source, apply: Apply, columns: dict[str, str], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        apply("compute", source(), columns=columns)
