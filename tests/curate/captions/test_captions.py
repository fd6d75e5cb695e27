"""`caption`, `mix_captions`, `caption_from`: what a row says about its image."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from curate.captions.prompts import definition
from curate.captions.templates import curated, named
from curate.errors import CurateError, DataError, RecipeError
from curate.rows.relation import Rows
from curate.wordnet import nouns

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
IN_IMAGENET = ["n01440764", "n02012849", "n03126707"]  # tench, both cranes


def captions(rows: Rows, read: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in read:
        found.setdefault(rows.classes[row["label"]].id, set()).add(row["caption"])
    return found


def timm_file(name: str) -> dict[str, str]:
    """Read timm's copy of what NLTK says about the synsets of ImageNet."""
    [package] = find_spec("timm").submodule_search_locations  # type: ignore[union-attr, misc]
    lines = (Path(package) / "data" / "_info" / name).read_text().splitlines()
    assert len(lines) > 21_000
    return dict(line.split("\t") for line in lines)  # type: ignore[misc]


def test_definitions_are_those_of_nltk() -> None:
    for wnid, expected in timm_file("imagenet_synset_to_definition.txt").items():
        assert definition(wnid) == expected


def test_synonyms_are_those_of_nltk() -> None:
    for wnid, expected in timm_file("imagenet_synset_to_lemma.txt").items():
        assert ", ".join(nouns().lemmas(wnid)) == expected


@pytest.mark.parametrize(
    ("names", "tench"),
    [
        ("lemma", {"a tench!"}),
        ("class", {"a tench!"}),
        ("synonyms", {"a tench!", "a Tinca tinca!"}),
        ("hypernym", {"a tench, a kind of cyprinid!"}),
        ("gloss", {"a tench, freshwater dace-like game fish of Europe and western Asia noted for ability to "
                   "survive outside water!"}),
    ],
)  # fmt: skip
def test_captions_call_a_class_as_wanted(
    source: Source, apply: Apply, content: Content, names: str, tench: set[str]
) -> None:
    after = apply("caption", source(), templates="a {}!", names=names)
    found = captions(after, content(after))
    assert len(found) == 6
    assert found["n01440764"] == tench


def test_class_and_lemma_differ_where_two_classes_share_a_word(
    source: Source, apply: Apply, content: Content
) -> None:
    own, lemma = (apply("caption", source(), templates="{}", names=names) for names in ("class", "lemma"))
    assert captions(own, content(own))["n03126707"] == {"crane (lifting device)"}
    assert captions(lemma, content(lemma))["n03126707"] == {"crane"}


def test_curated_names_are_in_the_order_of_imagenet(source: Source, apply: Apply, content: Content) -> None:
    # The two cranes and the two "missile"s, which tell a shifted list from a right one.
    known = curated()
    assert len(known) == 1000
    assert [known[w] for w in ("n01440764", "n02012849", "n03126707", "n15075141")] == [
        "tench",
        "crane bird",
        "construction crane",
        "toilet paper",
    ]
    rows = apply("classes", source(), names=IN_IMAGENET)
    after = apply("caption", rows, templates="{}", names="curated")
    assert captions(after, content(after))["n02012849"] == {"crane bird"}


@pytest.mark.parametrize("planning", [False, True])
def test_class_without_a_curated_name_is_refused(source: Source, apply: Apply, planning: bool) -> None:
    with pytest.raises(
        RecipeError, match=r"3 of 6 classes .* 1,000 \(such as n02084071, n02121620, n02958343"
    ):
        apply("caption", source(0, planning=planning), templates="{}", names="curated")


@pytest.mark.parametrize("names", ["hypernym", "gloss"])
def test_class_that_is_no_synset_has_no_gloss(source: Source, apply: Apply, names: str) -> None:
    rows = apply("relabel", source(), map={"dog": "pet", "cat": "pet"}, others="keep")
    with pytest.raises(RecipeError, match=r"1 of 5 classes are not among the synsets .*pet"):
        apply("caption", rows, templates="{}", names=names)
    after = apply("caption", rows, templates="{}", names="synonyms")
    assert sum(row["caption"] == "pet" for row in after.con.sql(f"FROM {after}").to_arrow_table().to_pylist())


def test_synonyms_are_uniform_and_apart_from_templates(
    source: Source, apply: Apply, content: Content
) -> None:
    after = apply("caption", source(12_000), templates=["0 {}", "1 {}", "2 {}"], names="synonyms")
    rows = [row for row in content(after) if row["label"] == 2]
    words = set(nouns().lemmas("n02084071"))
    found = Counter(row["caption"] for row in rows)
    assert set(found) == {f"{t} {word}" for t in (0, 1, 2) for word in words}
    assert len(found) == 9  # dog, domestic dog, Canis familiaris
    # 2,000 draws over nine texts: 222 each, five standard deviations of 14.1
    assert all(abs(count - 2000 / 9) < 71 for count in found.values())


def test_other_names_leave_the_templates_as_they_are(source: Source, apply: Apply, content: Content) -> None:
    drawn = [
        [row["template"] for row in content(apply("caption", source(), templates="openai-80", names=names))]
        for names in ("lemma", "synonyms", "gloss")
    ]
    assert len(set(drawn[0])) > 70
    assert drawn[0] == drawn[1] == drawn[2]


def test_alternatives_are_all_texts_of_the_class_in_a_fixed_order(
    source: Source, apply: Apply, content: Content
) -> None:
    texts = named("simple-7")
    after = apply("caption", source(), templates="simple-7", names="synonyms", alternatives=True)
    assert after.columns["captions"] == "VARCHAR[]"
    for row in content(after):
        wnid = after.classes[row["label"]].wnid
        assert row["captions"] == [t.replace("{}", word) for t in texts for word in nouns().lemmas(wnid)]
        assert row["caption"] in row["captions"]
    plain = content(apply("caption", source(), templates="simple-7", names="synonyms"))
    assert [row["caption"] for row in content(after)] == [row["caption"] for row in plain]


def captioned(source: Source, missing: int = 0) -> Rows:
    """Rows with captions of their own, but for the first so many."""
    rows = source()
    rows.con.execute("UPDATE source SET caption = 'seen ' || key")
    rows.con.execute(f"UPDATE source SET caption = NULL WHERE size < {1000 + missing}")
    return rows


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.001, 1), (0.25, 150), (1.0, 600)])
def test_exactly_a_share_is_templated_in_the_words_of_caption(
    source: Source, apply: Apply, content: Content, share: float, count: int
) -> None:
    options = {"templates": "openai-80", "names": "synonyms"}
    own = {row["key"]: row["caption"] for row in content(captioned(source))}
    made = {row["key"]: row for row in content(apply("caption", captioned(source), **options))}
    after = content(apply("mix_captions", captioned(source), share=share, **options))
    assert sum(row["templated"] for row in after) == count
    for row in after:
        expected = made[row["key"]] if row["templated"] else {"caption": own[row["key"]], "template": None}
        assert (row["caption"], row["template"]) == (expected["caption"], expected["template"])


def test_rows_templated_at_a_lower_share_are_inside(source: Source, apply: Apply, content: Content) -> None:
    def templated(share: float) -> set[str]:
        after = content(apply("mix_captions", captioned(source), share=share, templates="{}"))
        return {row["key"] for row in after if row["templated"]}

    few, many = templated(0.1), templated(0.4)
    assert few
    assert few < many


def test_rows_without_a_caption_are_refused_or_templated_first(
    source: Source, apply: Apply, content: Content
) -> None:
    with pytest.raises(DataError, match="90 rows have no caption of their own"):
        apply("mix_captions", captioned(source, 90), share=0.5, templates="{}")
    asked = {"templates": "{}", "missing": "template"}
    after = content(apply("mix_captions", captioned(source, 90), share=0.2, **asked))
    assert sum(row["templated"] for row in after) == 120
    assert all(row["templated"] for row in after if row["size"] < 1090)
    with pytest.raises(DataError, match=r"90 rows .* the share is 60 of 600") as raised:
        apply("mix_captions", captioned(source, 90), share=0.1, **asked)
    assert "0.15 or more" in (raised.value.hint or "")


def test_caption_is_joined_from_columns_as_in_imagenet_captions(source: Source, apply: Apply) -> None:
    rows = source(4)
    rows.con.execute(
        "CREATE TABLE told AS SELECT *, ['My cat', NULL, '  ', 'a\u00a0 b\n'][i + 1] AS title, "
        "[['cat', 'pet'], ['x', NULL, ' y '], [], NULL][i + 1] AS tags, [3, 4, NULL, NULL][i + 1] AS n "
        "FROM (SELECT *, row_number() OVER (ORDER BY key) - 1 AS i FROM source)"
    )
    told = rows.sql("FROM told")
    after = apply("caption_from", told, columns=["title", "tags", "n"])
    found = [c for (c,) in after.con.execute(f"SELECT caption FROM {after} ORDER BY key").fetchall()]
    assert found == ["My cat cat pet 3", "x y 4", None, "a b"]
    after = apply("caption_from", told, columns=["n", "title"], separator=" | ")
    found = [c for (c,) in after.con.execute(f"SELECT caption FROM {after} ORDER BY key").fetchall()]
    assert found == ["3 | My cat", "4", None, "a b"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["spilt"], "no column 'spilt'(?s:.*)did you mean 'split'"), ([], "the list is empty")],
)
def test_caption_from_refuses_columns_that_are_not_there(
    source: Source, apply: Apply, columns: list[str], message: str
) -> None:
    with pytest.raises(CurateError) as raised:
        apply("caption_from", source(), columns=columns)
    assert re.search(message, str(raised.value))


def test_a_caption_from_nothing_is_dropped_with_its_reason_and_its_columns_go(
    source: Callable[..., Rows], apply: Callable[..., Rows], content: Callable[..., list[Any]]
) -> None:
    rows = source(4).with_columns(title="if(key LIKE '%2', ' ', 'a title')", tags="NULL::VARCHAR")
    after = apply("caption_from", rows, columns=["title", "tags"], empty="drop", drop=True)
    assert {"title", "tags"} & set(after.columns) == set()
    assert [r["caption"] for r in content(after)] == ["a title"] * 3
    assert rows.con.execute(f"SELECT reason FROM {after.refused}").fetchall() == [("no text",)]
