"""All of a row's texts have one fate: `caption`, the list `captions`, and both before they were spoilt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.builds.plan import plan
from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from curate.recipes.recipe import Recipe
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]
Read = list[dict[str, Any]]

LISTS = "if(size % 5 = 0, NULL, ['text ' || key, 'a photo of number ' || size, 'one two three four'])"


def told(source: Source, lists: str = LISTS, caption: str = "captions[2]") -> Rows:
    rows = source().with_columns(captions=lists)
    return rows.with_columns(caption=f"coalesce({caption}, 'alone ' || key)")


def by_key(rows: Read, column: str) -> dict[str, Any]:
    return {row["key"]: row[column] for row in rows}


def test_shuffled_rows_have_all_texts_of_another(source: Source, apply: Apply, content: Content) -> None:
    before = content(told(source))
    after = content(apply("shuffle_captions", told(source), rate=0.5))
    lists = {row["caption"]: row["captions"] for row in before}
    assert [row["captions"] for row in after] == [lists[row["caption"]] for row in after]
    assert sum(a["captions"] != b["captions"] for a, b in zip(after, before, strict=True)) > 250
    assert by_key(after, "clean_captions") == by_key(before, "captions")
    assert Counter(map(str, by_key(after, "captions").values())) == Counter(
        map(str, by_key(before, "captions").values())
    )


def test_each_text_is_cut(source: Source, apply: Apply, content: Content) -> None:
    after = content(apply("truncate", told(source), words=2))
    for row in after:
        expected = [" ".join(text.split()[:2]) for text in row["clean_captions"] or []]
        assert (row["captions"] or []) == expected
    assert {row["captions"][2] for row in after if row["captions"]} == {"one two"}


def test_each_text_loses_its_share_of_words(source: Source, apply: Apply, content: Content) -> None:
    after = [row for row in content(apply("drop_words", told(source), rate=0.5)) if row["captions"]]
    assert len(after) == 480
    for row in after:
        assert [len(text.split()) for text in row["captions"]] == [1, 2, 2]
        assert all(
            set(new.split()) < set(old.split())
            for new, old in zip(row["captions"], row["clean_captions"], strict=True)
        )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("shuffle_captions", {"rate": 0.5}), ("truncate", {"words": 1}), ("drop_words", {"rate": 0.9})],
)
def test_clean_puts_all_texts_back(
    source: Source, apply: Apply, content: Content, name: str, arguments: dict[str, Any]
) -> None:
    before = content(told(source))
    spoilt = apply("truncate", apply(name, told(source), **arguments), characters=4)
    assert content(spoilt) != before
    assert content(apply("clean", spoilt)) == before


def test_a_caption_in_place_of_all_texts_leaves_no_list(
    source: Source, apply: Apply, content: Content
) -> None:
    spoilt = apply("truncate", told(source), words=1)
    after = apply("caption", spoilt, templates=["a {}"])
    assert not {"captions", "clean_caption", "clean_captions"} & set(after.columns)
    assert "clean_caption, clean_captions, captions went" in " ".join(after.notes)
    for name, arguments in (
        ("caption_from", {"columns": ["extra"]}),
        ("compute", {"columns": {"caption": "extra"}}),
    ):
        after = apply(name, told(source), **arguments)
        assert "captions" not in after.columns
        assert all(row["caption"] == row["extra"] for row in content(after))


def test_templated_rows_have_one_text_and_the_others_keep_theirs(
    source: Source, apply: Apply, content: Content
) -> None:
    spoilt = apply("truncate", told(source), words=2)
    before, after = content(spoilt), content(apply("mix_captions", spoilt, share=0.5, templates=["a {}"]))
    for old, new in zip(before, after, strict=True):
        kept = ("caption", "captions", "clean_caption", "clean_captions")
        if new["templated"]:
            assert [new[c] for c in kept] == [new["caption"], None, new["caption"], None]
        else:
            assert [new[c] for c in kept] == [old[c] for c in kept]
    assert sum(row["templated"] for row in after) == 300


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("compute", {"columns": {"caption": "lower(caption)"}}),
        ("compute", {"columns": {"captions": "[caption]"}}),
        ("caption_from", {"columns": ["caption", "extra"]}),
        ("join", {"file": "texts.jsonl", "missing": "keep"}),
    ],
)
def test_spoilt_texts_are_not_replaced(
    source: Source, apply: Apply, name: str, arguments: dict[str, Any]
) -> None:
    spoilt = apply("drop_words", told(source), rate=0.5)
    with pytest.raises(RecipeError, match=r"spoilt by an earlier step(?s:.*)`clean` first"):
        apply(name, spoilt, **arguments)
    apply(name, apply("clean", spoilt), **arguments)


def test_a_list_that_is_joined_is_all_that_a_row_says(source: Source, apply: Apply, content: Content) -> None:
    before = content(told(source, caption="if(size % 4 = 0, 'two ' || (size - 1000), captions[1])"))
    rows = told(source, caption="if(size % 4 = 0, 'two ' || (size - 1000), captions[1])")
    after = content(apply("join", rows, file="texts.jsonl", missing="keep"))
    for number, (old, row) in enumerate(zip(before, after, strict=True)):
        joined = number % 3 == 0
        assert row["captions"] == ([f"one {number}", f"two {number}"] if joined else None)
        own = not joined or number % 4 == 0
        assert row["caption"] == (old["caption"] if own else f"one {number}")


def test_captions_of_several_lines_are_a_list_of_which_the_first_is_the_caption(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("key,caption\npool/0000003,b\npool/0000003,a\npool/0000004,c\n")
    after = apply("join", source(), file=str(tmp_path / "t.csv"), several="list", missing="drop")
    assert after.columns["caption"] == "VARCHAR"
    assert [(row["caption"], row["captions"]) for row in content(after)] == [("a", ["a", "b"]), ("c", ["c"])]


def test_a_caption_and_a_list_that_disagree_are_refused(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    lines = [{"key": f"pool/{i:07d}", "caption": "one", "captions": ["one", "two"]} for i in range(600)]
    lines[7]["caption"] = "three"
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(
        DataError, match=r"1 rows have a caption that is none of their captions .such as pool/0000007"
    ):
        apply("join", source(), file=str(file))
    after = content(apply("join", source(), file=str(file), columns=["captions"]))
    assert {row["caption"] for row in after} == {"one"}


@pytest.mark.parametrize(
    ("lists", "kind", "way_out"),
    [
        (
            pa.array([[{"text": "a"}, {"text": "b"}]] * 60),
            "STRUCT",
            "list_transform(captions, lambda c: c.text)",
        ),
        (pa.array([[1, 2]] * 60), "BIGINT", "captions::VARCHAR[]"),
        (pa.array(["a"] * 60), "VARCHAR", "[captions]"),
    ],
)
def test_captions_that_are_no_list_of_texts_are_refused_with_a_way_out(
    recipe: Callable[..., Recipe],
    built: Callable[..., Dataset],
    tmp_path: Path,
    lists: pa.Array,
    kind: str,
    way_out: str,
) -> None:
    keys = sorted(built([], "keys").table(["key"])["key"].to_pylist())
    pq.write_table(pa.table({"key": keys, "captions": lists}), tmp_path / "t.parquet")
    steps: list[Any] = [{"join": {"file": "t.parquet"}}]
    for more in ([], [{"compute": {"columns": {"caption": "key"}}}], [{"truncate": {"words": 1}}]):
        with pytest.raises(RecipeError, match=f"'captions' is {kind}") as caught:
            plan(recipe(steps + more))
        assert way_out in str(caught.value.hint)
    data = built([*steps, {"compute": {"columns": {"captions": way_out}}}], "mended")
    assert data.info.columns["captions"] == "VARCHAR[]"
    table = data.table(["caption", "captions"]).to_pylist()
    assert all(row["caption"] in row["captions"] for row in table)


def test_texts_of_an_older_set_that_disagree_are_told_and_lose_their_list(
    built: Callable[..., Dataset], built_from: Callable[..., Dataset]
) -> None:
    old = built([{"caption": {"templates": ["a {}", "the {}"], "alternatives": True}}], "old")
    table = pq.read_table(old.path / "manifest.parquet")
    captions = table["caption"].to_pylist()
    captions[0] = "spoilt"
    pq.write_table(
        table.set_column(table.schema.get_field_index("caption"), "caption", pa.array(captions)),
        old.path / "manifest.parquet",
    )
    new = built_from({"dataset": str(old.path)}, overlay=True)
    lists = {row["caption"]: row["captions"] for row in new.table(["caption", "captions"]).to_pylist()}
    assert lists["spoilt"] is None
    assert sum(one is None for one in lists.values()) == 1
    assert "1 rows lost their list `captions`" in " ".join(new.info.ledger[-1].notes)


def test_the_ledger_counts_rows_whose_list_changed(built: Callable[..., Dataset]) -> None:
    made = {"caption": {"templates": ["a {}", "a very very long text of a {}"], "alternatives": True}}
    data = built([made, {"truncate": {"words": 2}}])
    assert data.info.ledger[-1].captions_changed == 60  # though half of the captions are short
