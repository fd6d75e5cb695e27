"""`filter`, `clip_score`, `text_based`: what goes, and for which reason."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curate.builds import ledger
from curate.captions.texts import words_sql
from curate.errors import DataError, RecipeError
from curate.rows.relation import Rows, columns_of
from curate.wordnet.forms import forms_of
from curate.wordnet.lists import wnids_of
from curate.wordnet.makers import DEBIAN, open_corpus

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
# Endings of plurals and of their nouns, as morphy(7WN) lists them.
ENDINGS = [
    *[("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh")],
    *[("men", "man"), ("ies", "y"), ("ves", "f")],
]
# key, caption, language, width, height, similarity → the first reason of `basic`, and of `laion2b`
PAIRS: list[tuple[tuple[Any, ...], str | None, str | None]] = [
    (("good", "a dog runs", "en", 200, 600, 0.28), None, None),
    (("none", None, "en", 300, 300, 0.3), "no caption", "no caption"),
    (("unknown", "a dog runs", None, 300, 300, 0.3), "language unknown", "language unknown"),
    (("german", "a", "de", 1, 1, 0.1), "language is not en", "language is not en"),
    (("two", "dogs running", "en", 300, 300, 0.3), "fewer than 3 words", None),
    (("short", "a b c", "en", 300, 300, 0.3), "fewer than 6 characters", None),
    (("long enough", "a b cd", "en", 300, 300, 0.3), None, None),
    (("small", "a dog runs", "en", 199, 600, 0.3), "side below 200 px", None),
    (("wide", "a dog runs", "en", 601, 200, 0.3), "aspect above 3", None),
    (("tall", "a dog runs", "en", 200, 601, 0.3), "aspect above 3", None),
    (("sizeless", "a dog runs", "en", None, 300, 0.3), "size unknown", None),
    (("empty", "a dog runs", "en", 0, 0, 0.3), "size unknown", None),
    (("poor", "a dog runs", "en", 300, 300, 0.2799), None, "similarity below 0.28"),
    (("unscored", "a dog runs", "en", 300, 300, None), None, "no similarity"),
    (("nan", "a dog runs", "en", 300, 300, float("nan")), None, "no similarity"),
]


@pytest.fixture
def paired(source: Source) -> Callable[..., Rows]:
    """Make rows of `(key, caption, language, width, height, similarity)`."""

    def make(pairs: list[tuple[Any, ...]], kind: str = "DOUBLE") -> Rows:
        con = source(0).con
        con.execute("DROP TABLE IF EXISTS pairs")
        con.execute(
            f"CREATE TABLE pairs AS SELECT *, NULL::VARCHAR AS language, NULL::{kind} AS similarity FROM source"
        )
        names = "key, caption, language, width, height, similarity"
        con.executemany(f"INSERT INTO pairs ({names}) VALUES (?, ?, ?, ?, ?, ?)", pairs)
        return Rows(con, "pairs", columns_of(con, "pairs"), ())

    return make


@pytest.mark.parametrize(("preset", "which"), [("basic", 1), ("laion2b", 2)])
def test_every_pair_goes_for_its_first_reason(
    paired: Source, apply: Apply, content: Content, preset: str, which: int
) -> None:
    rows = paired([pair for pair, *_ in PAIRS])
    expected = {case[0][0]: case[which] for case in PAIRS}
    flagged = content(apply("filter", rows, preset=preset, keep="flag"))
    assert {row["key"]: row["rejected"] for row in flagged} == expected
    kept = apply("filter", rows, preset=preset)
    assert {row["key"] for row in content(kept)} == {
        key for key, reason in expected.items() if reason is None
    }
    assert ledger.reasons(kept) == Counter(reason for reason in expected.values() if reason)


def test_options_come_in_place_of_the_presets(paired: Source, apply: Apply, content: Content) -> None:
    rows = paired([pair for pair, *_ in PAIRS])
    read = content(apply("filter", rows, preset="basic", min_words=2, max_words=2, min_side=100))
    assert [row["key"] for row in read] == ["two"]
    flagged = content(apply("filter", rows, min_words=4, max_aspect=1.5, keep="flag"))
    assert Counter(row["rejected"] for row in flagged) == {"fewer than 4 words": 14, "no caption": 1}


def test_similarity_is_compared_at_the_precision_of_its_column(
    paired: Source, apply: Apply, content: Content
) -> None:
    """0.7 as a 32-bit number is 0.699999988, which is below 0.7 as a 64-bit one."""
    rows = paired([("a", "x", "en", 1, 1, 0.7), ("b", "x", "en", 1, 1, 0.6999)], "FLOAT")
    for name, arguments in (("filter", {"min_similarity": 0.7}), ("clip_score", {"threshold": 0.7})):
        assert [row["key"] for row in content(apply(name, rows, **arguments))] == ["a"]


def test_first_filter_keeps_the_reason_when_a_second_flags(
    paired: Source, apply: Apply, content: Content
) -> None:
    once = apply("filter", paired([pair for pair, *_ in PAIRS]), preset="laion2b", keep="flag")
    twice = {
        row["key"]: row["rejected"] for row in content(apply("filter", once, preset="basic", keep="flag"))
    }
    assert twice == {case[0][0]: case[2] or case[1] for case in PAIRS}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "filter has no rule"),
        ({"preset": "basic"}, "no column 'language'(?s:.*)run the step `language` first"),
        ({"min_similarity": 0.3}, "no column 'similarity'"),
        ({"min_similarity": 0.3, "similarity": "clip_l14"}, "no column 'clip_l14'"),
        ({"min_words": 3, "max_words": 2}, "min_words 3 is above max_words 2"),
        ({"max_aspect": 0.5}, "max_aspect"),
    ],
)
def test_filter_refuses(source: Source, apply: Apply, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        apply("filter", source(), **arguments)
    assert raised.match(message)


def test_words_are_those_of_python() -> None:
    spaces = [chr(i) for i in range(0x110000) if chr(i).isspace()]
    assert len(spaces) > 20
    texts = [f"a{space}b {space}" for space in [*spaces, "​", "_", "-", "", "\x00", "日本語"]] + ["", " "]
    with duckdb.connect() as con:
        for text in texts:
            assert con.execute(f"SELECT {words_sql('?')}", [text]).fetchone() == (text.split(),)
        assert con.execute(f"SELECT {words_sql('NULL::VARCHAR')}").fetchone() == (None,)


# clip_score


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.001, 1), (0.3, 180), (1.0, 600)])
def test_a_fraction_keeps_exactly_the_best(
    source: Source, apply: Apply, content: Content, fraction: float, count: int
) -> None:
    rows = source().with_columns(similarity="(size % 7)::FLOAT / 7")  # many ties
    kept = apply("clip_score", rows, fraction=fraction)
    ranked = sorted(content(rows), key=lambda row: (-row["similarity"], row["key"]))
    assert {row["key"] for row in content(kept)} == {row["key"] for row in ranked[:count]}
    assert ledger.reasons(kept) == (
        {f"similarity not in the top {fraction:g}": 600 - count} if count < 600 else {}
    )


def test_rows_without_a_score_go_and_count_for_the_fraction(
    paired: Source, apply: Apply, content: Content
) -> None:
    scores = [None, float("nan"), 0.1, -0.4, 0.3, 0.2]
    rows = paired([(str(i), "x", "en", 1, 1, score) for i, score in enumerate(scores)])
    read = content(apply("clip_score", rows, fraction=0.5, keep="flag"))
    assert [row["rejected"] for row in read] == [
        "no similarity", "no similarity", None, "similarity not in the top 0.5", None, None,
    ]  # fmt: skip
    with pytest.raises(DataError, match="5 of 6 rows wanted, but only 4 have a similarity"):
        apply("clip_score", rows, fraction=0.75)


def test_a_threshold_keeps_what_is_at_or_above_it(paired: Source, apply: Apply, content: Content) -> None:
    rows = paired([(str(i), "x", "en", 1, 1, s) for i, s in enumerate([0.28, 0.2799, 0.5, None])])
    kept = apply("clip_score", rows, threshold=0.28)
    assert [row["key"] for row in content(kept)] == ["0", "2"]
    assert ledger.reasons(kept) == {"no similarity": 1, "similarity below 0.28": 1}


@pytest.mark.parametrize("arguments", [{}, {"fraction": 0.3, "threshold": 0.25}])
def test_clip_score_takes_one_of_fraction_and_threshold(
    source: Source, apply: Apply, arguments: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match="either `fraction` or `threshold`"):
        apply("clip_score", source().with_columns(similarity="0.5"), **arguments)


# text_based


@pytest.fixture(scope="module")
def named() -> Callable[[str], bool]:
    """Tell by NLTK whether DataComp's `text_based` takes a word: the offset of its first synset."""
    if not (DEBIAN / "data.noun").is_file():
        pytest.skip("no WordNet 3.0 database: apt-get install wordnet-base")
    offsets = {int(wnid[1:]) for wnid in wnids_of("imagenet-21k")}
    with open_corpus(DEBIAN) as corpus:
        yield lambda word: bool(found := corpus.synsets(word)) and found[0].offset() in offsets


def test_words_of_real_captions_are_judged_as_by_nltk(
    named: Callable[[str], bool], shared: Path, apply: Apply, content: Content, paired: Source
) -> None:
    """But for words that are no noun, whose verb or adjective happens to stand at the same offset in its own file."""
    with duckdb.connect() as con:
        texts = con.execute(
            "SELECT TEXT FROM read_parquet(?) WHERE TEXT IS NOT NULL",
            [str(shared / "data/tables/laion_precursor_6000.parquet")],
        ).fetchall()
    words = {word for (text,) in texts for word in text.split()}
    by_nltk = {word for word in words if named(word)}
    ours = set(forms_of(wnids_of("imagenet-21k")))
    assert len(words) > 20_000
    assert len(by_nltk) > 3_000
    assert by_nltk ^ {word for word in words if word.lower() in ours} == {
        *("Planetary", "Rocking", "Tested", "encapsulated", "rocked")
    }
    rows = paired([(f"{i:05d}", text, "en", 1, 1, None) for i, (text,) in enumerate(texts)])
    kept = {row["key"] for row in content(apply("text_based", rows))}
    expected = {f"{i:05d}" for i, (text,) in enumerate(texts) if not by_nltk.isdisjoint(text.split())}
    assert 3_000 < len(expected) < 5_000
    assert len(kept ^ expected) == 2


def test_plurals_are_judged_as_by_nltk(named: Callable[[str], bool]) -> None:
    """All irregular forms, and regular ones of every ending."""
    ours = set(forms_of(wnids_of("imagenet-21k")))
    irregular = [line.split()[0] for line in (DEBIAN / "noun.exc").read_text(encoding="utf-8").splitlines()]
    assert {"geese", "men", "wolves", "mice"} <= set(irregular)
    assert {"geese", "wolves", "mice"} <= ours
    assert [form for form in irregular if named(form) != (form in ours)] == []
    some = sorted(ours)[::40]
    regular = [
        form.removesuffix(end) + plural for plural, end in ENDINGS for form in some if form.endswith(end)
    ]
    assert len(regular) > 1_000
    assert [form for form in regular if named(form) != (form in ours)] == []


def test_captions_that_name_nothing_go_for_that_reason(
    paired: Source, apply: Apply, content: Content
) -> None:
    captions = {
        "a": "Two DOGS bark", "b": "of and the", "c": "dog, cat.", "d": "ein Hund", "e": None, "f": "wolves",
    }  # fmt: skip
    rows = paired([(key, text, "de" if key == "d" else "en", 1, 1, None) for key, text in captions.items()])
    read = content(apply("text_based", rows, keep="flag"))
    nothing = "no word of ImageNet-21k"
    reasons = [None, nothing, nothing, "language is not en", "no caption", None]
    assert [row["rejected"] for row in read] == reasons
    with_any = content(apply("text_based", rows, language="any", keep="flag"))
    assert [row["rejected"] for row in with_any] == [*reasons[:3], nothing, *reasons[4:]]


def test_the_packaged_exceptions_are_those_of_wordnet() -> None:
    if not (DEBIAN / "noun.exc").is_file():
        pytest.skip("no WordNet 3.0 database: apt-get install wordnet-base")
    lines = [line.split() for line in (DEBIAN / "noun.exc").read_text(encoding="utf-8").splitlines()]
    expected = {form: nouns for form, *nouns in lines}  # the last line of a form counts, as in NLTK
    path = Path(__file__).parents[3] / "curate/wordnet/noun_exceptions.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        assert {row["form"]: row["nouns"].split() for row in csv.DictReader(stream)} == expected
