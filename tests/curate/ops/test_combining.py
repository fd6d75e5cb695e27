"""`join`, `top`, `label_from`, `mix` and the source `union`: what several tables and sets make together."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.datasets.verification import verify
from curate.errors import CurateError, DataError, RecipeError
from curate.recipes.recipe import load
from curate.rows.relation import Rows

Source = Callable[..., Rows]
Apply = Callable[..., Rows]
Content = Callable[[Rows], list[dict[str, Any]]]


def keys(rows: list[dict[str, Any]]) -> set[str]:
    return {row["key"] for row in rows}


def test_join_brings_each_row_its_own_value(source: Source, apply: Apply, content: Content) -> None:
    after = content(apply("join", source(), file="scores.csv", columns=["score"]))
    assert len(after) == 600
    assert {r["key"]: r["score"] for r in after} == {
        f"pool/{i:07d}": pytest.approx(i * 37 % 101 / 100) for i in range(600)
    }
    assert "rate" not in after[0]


@pytest.mark.parametrize("name", ["t.parquet", "t.jsonl", "t.tsv", "t.csv.gz"])
def test_join_reads_every_kind_of_table(
    source: Source, apply: Apply, content: Content, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "t.parquet":
        pq.write_table(pa.table({"key": ["pool/0000003"], "human": ["dog"]}), path)
    elif name == "t.jsonl":
        path.write_text('{"key": "pool/0000003", "human": "dog"}\n')
    elif name == "t.tsv":
        path.write_text("key\thuman\npool/0000003\tdog\n")
    else:
        path.write_bytes(gzip.compress(b"key,human\npool/0000003,dog\n"))
    after = content(apply("join", source(), file=str(path), missing="drop"))
    assert [(r["key"], r["human"]) for r in after] == [("pool/0000003", "dog")]


def test_join_takes_keys_that_look_like_numbers_as_text(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("key,v\n0001,a\n1,b\n")
    rows = source(2, example=None).with_columns(key="CASE WHEN key LIKE '%0' THEN '0001' ELSE '1' END")
    after = content(apply("join", rows, file=str(tmp_path / "t.csv")))
    assert {r["key"]: r["v"] for r in after} == {"0001": "a", "1": "b"}


def test_join_says_which_rows_the_table_lacks(source: Source, apply: Apply, content: Content) -> None:
    rows = source(602)
    with pytest.raises(
        DataError, match=r"2 rows are not in .*scores.csv \(such as pool/0000600, pool/0000601\)"
    ):
        apply("join", rows, file="scores.csv")
    kept = content(apply("join", rows, file="scores.csv", missing="keep"))
    assert [r["score"] for r in kept[-2:]] == [None, None]
    dropped = apply("join", rows, file="scores.csv", missing="drop")
    assert len(content(dropped)) == 600
    assert rows.con.execute(f"SELECT reason, count(*) FROM {dropped.refused} GROUP BY 1").fetchall() == [
        ("not in the table", 2)
    ]


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("key,v\na,1\na,2\n", {}, "1 values of 'key' stand there more than once"),
        ("key,v\na,1\n", {"columns": ["w"]}, "no column 'w'"),
        ("name,v\na,1\n", {}, "has no column 'key'(?s:.*)`by` names the one"),
        ("key,label\na,1\n", {}, "would replace the rows' own"),
        ("key,_in_table\na,1\n", {}, "begin with _"),
    ],
)
def test_join_refuses_tables_that_do_not_fit(
    source: Source, apply: Apply, tmp_path: Path, text: str, arguments: dict[str, Any], says: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(CurateError, match=says):
        apply("join", source(), file=str(tmp_path / "t.csv"), missing="keep", **arguments)


def test_top_keeps_exactly_the_best(source: Source, apply: Apply, content: Content) -> None:
    rows = source()
    best = content(apply("top", rows, by="size", number=7))
    assert sorted(r["size"] for r in best) == list(range(1593, 1600))
    least = content(apply("top", rows, by="size", fraction=0.0125, order="lowest"))
    assert sorted(r["size"] for r in least) == list(range(1000, 1008))  # 7.5, halves up


def test_top_breaks_ties_by_key_and_nests(source: Source, apply: Apply, content: Content) -> None:
    rows = source()
    few, many = (content(apply("top", rows, by="height", number=n)) for n in (5, 50))  # all are 48 high
    assert [r["key"] for r in few] == [f"pool/{i:07d}" for i in range(5)]
    assert keys(few) < keys(many)


def test_top_of_each_class_takes_as_many_of_each(source: Source, apply: Apply, content: Content) -> None:
    after = content(apply("top", source(), by="size", number=50, per="class"))
    assert Counter(r["label"] for r in after) == dict.fromkeys(range(6), 50)
    by_class = {r["label"]: [] for r in after}
    for row in content(source()):
        by_class[row["label"]].append(row["size"])
    assert {r["size"] for r in after} == {s for sizes in by_class.values() for s in sorted(sizes)[-50:]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"by": "size", "number": 601}, "601 rows wanted of 600"),
        ({"by": "size", "number": 51, "per": "class"}, "1 classes have fewer than 51 rows"),
        ({"by": "scores", "number": 1}, "no column 'scores'"),
        ({"by": "caption", "number": 3}, "3 rows have no 'caption' and would have to be kept"),
        ({"by": "size"}, "either `number` or `fraction`"),
    ],
)
def test_top_refuses_what_cannot_be(
    source: Source, apply: Apply, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(CurateError, match=says):
        apply("top", source(), **arguments)


def test_human_labels_become_noise_with_the_true_label_kept(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = source().with_columns(human="CASE WHEN key LIKE '%7' THEN 'cat' ELSE 'n02084071' END")
    after = apply("label_from", rows, column="human", keep_clean=True)
    names = [c.name for c in after.classes]
    for before, row in zip(content(rows), content(after), strict=True):
        assert names[row["label"]] == ("cat" if row["key"].endswith("7") else "dog")
        assert row["clean_label"] == before["label"]


def test_a_label_that_is_no_class_is_refused_with_examples(source: Source, apply: Apply) -> None:
    rows = source().with_columns(human="CASE WHEN key LIKE '%77' THEN 'ct' ELSE 'cat' END")
    with pytest.raises(DataError, match=r"6 rows have a 'human' that is no class \(such as ct, ct, ct\)"):
        apply("label_from", rows, column="human")


# Mixing


@pytest.fixture
def mixed(
    built: Callable[..., Dataset], write_recipe: Callable[..., Path], tmp_path: Path
) -> Callable[..., Dataset]:
    """Build a union of two sets over the pool, 48 and 24 rows of which 24 are in both."""
    built([{"per_class": 8}], name="a")
    built([{"per_class": 4}], name="b", seed=0)

    def make(steps: list[Any], name: str = "mixed", *, overlay: bool = True, **options: Any) -> Dataset:
        parts = {"a": {"dataset": str(tmp_path / "a")}, "b": {"dataset": str(tmp_path / "b")}}
        source = {"union": {"parts": parts, **options}}
        path = write_recipe({"source": source, "steps": steps}, name)
        return build(load(path), tmp_path / name, overlay=overlay)[0].dataset

    return make


def counts(dataset: Dataset) -> dict[str, int]:
    return dict(Counter(dataset.table(["source"])["source"].to_pylist()))


def test_union_has_all_rows_and_says_where_each_is_from(mixed: Callable[..., Dataset]) -> None:
    both = mixed([], overlay=False)
    sizes = counts(both)
    assert sizes["a"] > sizes["b"] > 0
    assert all(k.startswith(("a/", "b/")) for k in both.table(["key"])["key"].to_pylist())
    assert verify(both.path) == []


def test_union_keeps_the_first_of_a_key_or_refuses(mixed: Callable[..., Dataset]) -> None:
    first = mixed([], "first", duplicates="first")
    assert set(counts(first)) == {"a"}  # all of b is in a
    with pytest.raises(DataError, match="keys stand for two files or more"):
        mixed([], "error", duplicates="error")


def test_mix_is_exact_and_nests(mixed: Callable[..., Dataset]) -> None:
    large = mixed([{"mix": {"counts": {"a": 12, "b": 6}}}], "large")
    small = mixed([{"mix": {"shares": {"a": 0.75, "b": 0.25}, "number": 10}}], "small")
    assert counts(large) == {"a": 12, "b": 6}
    assert counts(small) == {"a": 8, "b": 2}  # 7.5 and 2.5: the first by name gets the half
    assert set(small.table(["key"])["key"].to_pylist()) < set(large.table(["key"])["key"].to_pylist())


def test_mix_without_a_number_takes_the_most_that_the_shares_allow(mixed: Callable[..., Dataset]) -> None:
    even = mixed([{"mix": {"shares": {"a": 0.5, "b": 0.5}}}], "even")
    sizes = counts(mixed([]))
    assert counts(even) == {"a": sizes["b"], "b": sizes["b"]}


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"counts": {"a": 10_000, "b": 1}}, "10,000 rows of 'a' wanted of"),
        ({"counts": {"aa": 1}}, "no rows with source 'aa'"),
        ({"shares": {"a": 0.5, "b": 0.6}}, "must add up to 1, not to 1.1"),
        ({"shares": {"a": 1.0}, "counts": {"a": 1}}, "either `counts`, or `shares`"),
    ],
)
def test_mix_refuses_what_cannot_be(mixed: Callable[..., Dataset], step: dict[str, Any], says: str) -> None:
    with pytest.raises(CurateError, match=says):
        mixed([{"mix": step}])


def test_classes_of_two_pools_are_one_list(
    pool: Path, write_recipe: Callable[..., Path], tmp_path: Path, jpeg: Callable[..., bytes]
) -> None:
    for i, folder in enumerate(("n02084071", "apple")):  # the first may be in the pool, the other is not
        (tmp_path / "more" / folder).mkdir(parents=True)
        (tmp_path / "more" / folder / "1.jpg").write_bytes(jpeg(i))
    source = {"union": {"parts": {"pool": {"folder": str(pool)}, "more": {"folder": str(tmp_path / "more")}}}}
    path = write_recipe({"source": source, "steps": []}, "classes")
    both = build(load(path), tmp_path / "classes", overlay=True)[0].dataset
    rows = both.table(["file", "label", "source"]).to_pylist()
    assert {both.classes[r["label"]].id for r in rows if r["source"] == "more"} == {"n02084071", "apple"}
    for row in rows:  # the class folder of every file is the id of its label
        assert f"/{both.classes[row['label']].id}/" in "/" + row["file"]
    assert verify(both.path) == []


def test_union_refuses_columns_of_two_types(
    built: Callable[..., Dataset], write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    tables = {"x": "1.5", "y": "text"}
    for name, value in tables.items():
        keys_there = built([{"per_class": 2}], name=f"base-{name}").table(["key"])["key"].to_pylist()
        (tmp_path / f"{name}.csv").write_text("key,extra\n" + "".join(f"{k},{value}\n" for k in keys_there))
        built([{"per_class": 2}, {"join": {"file": f"{name}.csv"}}], name=name)
    parts = {name: {"dataset": str(tmp_path / name)} for name in tables}
    path = write_recipe({"source": {"union": {"parts": parts}}, "steps": []}, "clash")
    with pytest.raises(RecipeError, match="column 'extra' is DOUBLE in x and VARCHAR in y"):
        build(load(path), tmp_path / "clash", overlay=True)


def test_join_finds_rows_by_an_expression(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    (tmp_path / "t.json").write_text('[{"filename": "0000003.jpg", "key": "other", "tags": ["a", "b"]}]')
    after = apply(
        "join", source(), file=str(tmp_path / "t.json"), columns=["tags"], by="filename",
        equal_to="parse_filename(file)", missing="drop",
    )  # fmt: skip
    assert [(r["key"], r["tags"]) for r in content(after)] == [("pool/0000003", ["a", "b"])]
    with pytest.raises(RecipeError, match="no column 'fil'"):
        apply("join", source(), file=str(tmp_path / "t.json"), by="filename", equal_to="parse_filename(fil)")


def test_a_table_that_has_none_of_the_rows_is_refused_with_both_sides(
    source: Source, apply: Apply, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("file,human\ntrain/pool/0000003.jpg,dog\n")
    for missing in ("keep", "drop", "error"):
        with pytest.raises(DataError, match=r"rows have 'pool/0000000.jpg', its 'file' has 'train/pool"):
            apply(
                "join", source(), file=str(tmp_path / "t.csv"), by="file", columns=["human"], missing=missing
            )


def test_several_values_of_a_key_become_a_list(
    source: Source, apply: Apply, content: Content, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("key,text\npool/0000003,b\npool/0000003,a\npool/0000004,c\n")
    after = apply("join", source(), file=str(tmp_path / "t.csv"), several="list", missing="drop")
    assert {r["key"]: r["text"] for r in content(after)} == {
        "pool/0000003": ["a", "b"],
        "pool/0000004": ["c"],
    }
    assert after.notes == ("2 of 600 rows are in the table",)


def test_numbers_are_labels_where_no_class_is_called_so(
    source: Source, apply: Apply, content: Content
) -> None:
    rows = source().with_columns(human="(label + 1) % 6")
    for before, row in zip(content(rows), content(apply("label_from", rows, column="human")), strict=True):
        assert row["label"] == before["human"]
    with pytest.raises(DataError, match="no class"):
        apply("label_from", source().with_columns(human="6"), column="human")
