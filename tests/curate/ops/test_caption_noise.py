"""`shuffle_captions`, `truncate`, `drop_words`: captions that are wrong or lack something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from curate.errors import DataError, RecipeError
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Read = list[dict[str, Any]]


def captioned(source: Source, text: str = "'a photo of number ' || size") -> Rows:
    rows = source()
    rows.con.execute(f"UPDATE source SET caption = {text}")
    return rows


def moved(rows: Read) -> dict[str, str]:
    return {row["key"]: row["caption"] for row in rows if row["caption"] != row["clean_caption"]}


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (0.003, 2), (0.25, 150), (1.0, 600)])
def test_exactly_the_rate_gets_the_caption_of_another_row(
    source: Source, apply: Apply, content: Content, rate: float, count: int
) -> None:
    before = content(captioned(source))
    after = content(apply("shuffle_captions", captioned(source), rate=rate))
    assert len(moved(after)) == count
    assert [row["clean_caption"] for row in after] == [row["caption"] for row in before]
    assert Counter(row["caption"] for row in after) == Counter(row["caption"] for row in before)


def test_rows_shuffled_at_a_lower_rate_are_shuffled_at_a_higher(
    source: Source, apply: Apply, content: Content
) -> None:
    few, many = (moved(content(apply("shuffle_captions", captioned(source), rate=r))) for r in (0.1, 0.3))
    assert (len(few), len(many)) == (60, 180)
    assert few.keys() < many.keys()
    assert len(few.items() & many.items()) == 59  # all but the one that closed the ring


def test_rows_without_a_caption_stay_out_of_the_shuffle(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = captioned(source, "if(label = 0, NULL, key)")
    after = content(apply("shuffle_captions", rows, rate=0.5))
    assert len(moved(after)) == 225  # of 450
    assert all((row["caption"] is None) == (row["label"] == 0) for row in after)


def test_one_caption_alone_cannot_be_shuffled(source: Source, apply: Apply) -> None:
    with pytest.raises(DataError, match="hits 1 of 600 captioned rows"):
        apply("shuffle_captions", captioned(source), rate=0.001)


def test_rows_of_which_none_has_a_caption_cannot_be_shuffled(
    source: Source, apply: Apply, content: Content
) -> None:
    with pytest.raises(DataError, match=r"none of the 600 rows has a caption(?s:.*)caption_from"):
        apply("shuffle_captions", captioned(source, "NULL"), rate=0.1)
    assert len(content(apply("shuffle_captions", captioned(source, "NULL"), rate=0.0))) == 600
    apply("shuffle_captions", source(0, planning=True), rate=0.1)


@pytest.mark.parametrize(
    ("caption", "words", "characters"),
    [
        ("one two three four", "one two", "one t"),
        ("  one   two\tthree", "one two", "  one"),
        ("one  two", "one  two", "one"),
        ("köln über alles", "köln über", "köln"),
        ("one", "one", "one"),
        ("", "", ""),
        (None, None, None),
    ],
)
def test_truncated_captions_keep_their_start(
    source: Source, apply: Apply, content: Content, caption: str | None, words: str, characters: str
) -> None:
    given = "NULL" if caption is None else f"'{caption}'"
    for option, count, expected in (("words", 2, words), ("characters", 5, characters)):
        after = content(apply("truncate", captioned(source, given), **{option: count}))
        assert {row["caption"] for row in after} == {expected}
        assert {row["clean_caption"] for row in after} == {caption}


@pytest.mark.parametrize("arguments", [{}, {"words": 2, "characters": 3}, {"words": 0}])
def test_truncate_takes_one_of_words_and_characters(
    source: Source, apply: Apply, arguments: dict[str, int]
) -> None:
    with pytest.raises(RecipeError):
        apply("truncate", source(), **arguments)


@pytest.mark.parametrize(("rate", "left"), [(0.0, 10), (0.04, 10), (0.05, 9), (0.3, 7), (0.96, 1), (1.0, 1)])
def test_exactly_the_rate_of_the_words_is_dropped_in_order(
    source: Source, apply: Apply, content: Content, rate: float, left: int
) -> None:
    after = content(apply("drop_words", captioned(source, "'0 1 2 3 4 5 6 7 8 9'"), rate=rate))
    found = [row["caption"].split() for row in after]
    assert {len(words) for words in found} == {left}
    assert all(words == sorted(words) for words in found)
    assert {row["clean_caption"] for row in after} == {"0 1 2 3 4 5 6 7 8 9"}


def test_words_dropped_at_a_lower_rate_are_dropped_at_a_higher(
    source: Source, apply: Apply, content: Content
) -> None:
    def words(rate: float) -> list[set[str]]:
        after = content(apply("drop_words", captioned(source, "'a b c d e f g'"), rate=rate))
        return [set(row["caption"].split()) for row in after]

    few, many = words(0.2), words(0.6)
    assert all(len(one) == 6 and len(other) == 3 for one, other in zip(few, many, strict=True))
    assert all(other < one for one, other in zip(few, many, strict=True))


def test_every_word_is_as_likely_to_be_dropped(source: Source, apply: Apply, content: Content) -> None:
    after = content(apply("drop_words", captioned(source, "'a b c d'"), rate=0.5))
    found = Counter(word for row in after for word in row["caption"].split())
    # 600 rows keep two of four: 300 each, five standard deviations of 12.2
    assert all(abs(found[word] - 300) < 61 for word in "abcd")


def test_captions_without_words_stay(source: Source, apply: Apply, content: Content) -> None:
    rows = captioned(source, "[NULL, '', ' ', 'one'][size % 4 + 1]")
    before = [row["caption"] for row in content(rows)]
    assert [row["caption"] for row in content(apply("drop_words", rows, rate=1.0))] == before


def test_second_noise_keeps_the_first_clean_caption(source: Source, apply: Apply, content: Content) -> None:
    before = {row["key"]: row["caption"] for row in content(captioned(source))}
    once = apply("shuffle_captions", captioned(source), rate=0.5)
    twice = apply("truncate", apply("drop_words", once, rate=0.4), words=2)
    after = content(twice)
    assert all(len(row["caption"].split()) == 2 for row in after)
    assert {row["key"]: row["clean_caption"] for row in after} == before
