"""`match`: labels from text, held against plain regular expressions over real captions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curate.builds.ledger import reasons
from curate.errors import CurateError, RecipeError
from curate.rows.relation import Rows, columns_of
from curate.wordnet import nouns
from curate.wordnet.lists import wnids_of

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
REASONS = ("names no class", "names several classes")


def told(source: Source, *captions: str | None) -> Rows:
    rows = source(len(captions))
    for number, caption in enumerate(captions):
        rows.con.execute("UPDATE source SET caption = ? WHERE size = ?", [caption, 1000 + number])
    return rows


def named(rows: Rows, read: list[dict[str, Any]]) -> list[str | None]:
    return [None if row["label"] is None else rows.classes[row["label"]].id for row in read]


@pytest.mark.parametrize(
    ("caption", "wnid"),
    [
        ("my dog", "n02084071"),
        ("A DOMESTIC\tDog!", "n02084071"),
        ("canis_familiaris", "n02084071"),
        ("the dog's bone", "n02084071"),
        ("dog and domestic dog", "n02084071"),  # two names of one class
        ("tabby-cat", "n02123045"),
        ("two dogs", None),
        ("hotdog", None),
        ("domestic", None),
        ("dog and tabby", None),
        ("a tiger shark", None),  # names the tiger too
        ("a crane", None),  # the bird or the machine
        ("x|dog", "n02084071"),
        ("crane|dog", None),
        ("domestic|cat", None),
        ("", None),
        (None, None),
    ],
)
def test_exactly_one_class_in_the_text_is_the_label(
    source: Source, apply: Apply, content: Content, caption: str | None, wnid: str | None
) -> None:
    rows = told(source, caption, "a tiger")
    classes = ["n02129604", "n01491361", "n02123045", "dog.n.01", "n02012849", "n03126707"]
    kept = apply("match", rows, classes=classes)
    assert named(kept, content(kept)) == ([wnid] if wnid else []) + ["n02129604"]
    flagged = apply("match", rows, classes=classes, keep="flag")
    assert named(flagged, content(flagged)) == [wnid, "n02129604"]
    assert [row["rejected"] is None for row in content(flagged)] == [wnid is not None, True]


def test_rows_that_go_are_counted_by_reason(source: Source, apply: Apply) -> None:
    rows = told(source, "dog", "dog and tench", "a car", None, "tench or dog", "x")
    after = apply("match", rows, classes=["dog.n.01", "tench"])
    assert reasons(after) == {"names no class": 3, "names several classes": 2}


def test_phrase_does_not_reach_from_one_column_into_the_next(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = told(source, "tinca", "tinca tinca")
    tagged = rows.with_columns(tags="['x', 'tinca', 'tinca']", title="'tinca'")
    for column, expected in (("title", []), ("tags", [])):
        both = tagged.sql(f"SELECT * FROM {tagged} WHERE caption = 'tinca'")
        after = apply("match", both, classes=["n01440764"], columns=["caption", column])
        assert named(after, content(after)) == expected
    after = apply("match", tagged, classes=["n01440764"], columns=["caption", "tags"])
    assert named(after, content(after)) == ["n01440764"]


def test_classes_of_the_set_are_those_of_the_list_in_its_order(source: Source, apply: Apply) -> None:
    after = apply("match", source(), classes=["n02084071", "n01440764"])
    assert [(c.name, c.wnid) for c in after.classes] == [("dog", "n02084071"), ("tench", "n01440764")]
    assert len(apply("match", source(0, planning=True), classes="imagenet-1k").classes) == 1000


def test_source_without_classes_gets_them(source: Source, apply: Apply, content: Content) -> None:
    rows = told(source, "a dog")
    bare = Rows(rows.con, rows.name, rows.columns, ())
    bare.con.execute("UPDATE source SET label = NULL")
    after = apply("match", bare, classes=["dog.n.01"])
    assert named(after, content(after)) == ["n02084071"]


def test_curated_names_know_no_synonyms(source: Source, apply: Apply, content: Content) -> None:
    rows = told(source, "crane bird", "crane", "tinca tinca", "construction crane")
    classes = ["n01440764", "n02012849", "n03126707"]
    after = apply("match", rows, classes=classes, names="curated", keep="flag")
    assert named(after, content(after)) == ["n02012849", None, None, "n03126707"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": "imagenet-1kk"}, "did you mean 'imagenet-1k'"),
        ({"classes": []}, "classes: the list is empty"),
        ({"classes": ["tench"], "columns": []}, "columns: the list is empty"),
        ({"classes": ["tench"], "columns": ["captoin"]}, "did you mean 'caption'"),
        ({"classes": ["tench", "n01440764"]}, "listed twice"),
        ({"classes": ["dog.n.01"], "names": "curated"}, "1 of 1 classes"),
        ({"classes": ["tnech"]}, "no noun 'tnech'"),
    ],
)
def test_match_refuses_nonsense_while_planning(
    source: Source, apply: Apply, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CurateError, match=re.escape(message)) as raised:
        apply("match", source(0, planning=True), **arguments)
    assert isinstance(raised.value, RecipeError)


def test_match_after_noise_is_refused(source: Source, apply: Apply) -> None:
    with pytest.raises(RecipeError, match="true labels"):
        apply("match", apply("noise", source(), rate=0.1), classes=["tench"])


def by_expressions(texts: list[str], wnids: tuple[str, ...]) -> list[str | None]:
    """Say what each text names, by one regular expression a name: slow, and another way altogether."""
    classes: dict[str, set[str]] = {}
    for wnid in wnids:
        for lemma in nouns().lemmas(wnid):
            words = re.findall(r"[^\W_]+", lemma.lower())
            classes.setdefault(r"[\W_]+".join(words), set()).add(wnid)
    patterns = [(re.compile(rf"(?<![^\W_]){p}(?![^\W_])"), found) for p, found in classes.items()]
    named: list[str | None] = []
    for text in texts:
        hits = set().union(*(found for pattern, found in patterns if pattern.search(text.lower())))
        named.append(next(iter(hits)) if len(hits) == 1 else "" if hits else None)
    return named


def test_labels_of_real_captions_are_those_of_regular_expressions(
    shared: Path, apply: Apply, content: Content
) -> None:
    table = shared / "data" / "tables" / "laion_precursor_6000.parquet"
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE source AS SELECT printf('%05d', row_number() OVER ()) AS key, NULL::INTEGER AS label, "
            f"TEXT AS caption FROM read_parquet('{table}') WHERE TEXT IS NOT NULL LIMIT 1500"
        )
        rows = Rows(con, "source", columns_of(con, "source"), ())
        after = apply("match", rows, classes="imagenet-1k", keep="flag")
        read = content(after)
        expected = by_expressions([row["caption"] for row in read], wnids_of("imagenet-1k"))
        assert Counter(row["rejected"] for row in read).keys() == {None, *REASONS}
        assert named(after, read) == [wnid or None for wnid in expected]
        several = [row["rejected"] == "names several classes" for row in read]
        assert several == [wnid == "" for wnid in expected]
