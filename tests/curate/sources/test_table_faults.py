"""Tables as they are found: files of one table that differ, bytes that are no text, names that are taken, cut files."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.builds.build import build
from curate.builds.plan import plan
from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from curate.recipes.recipe import parse
from curate.rows.readers import jsons
from curate.sources.table import table, usable
from curate.sources.table.layouts.guessing import find, guess
from curate.sources.table.layouts.layout import GIVEN

Slice = Callable[..., Dataset]


@pytest.fixture
def slice_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slice:
    """Build the rows of a table: `slice_of(path, [step, …], as="laion")`."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))

    def make(path: Any, steps: list[Any] | None = None, name: str = "slice", **options: Any) -> Dataset:
        recipe = parse({"name": name, "source": {"table": str(path), **options}, "steps": steps or []})
        return build(recipe, tmp_path / "sets" / name, overlay=True, replace=True)[0].dataset

    return make


def pairs(
    rows: int, *, start: int = 0, text: str = "caption", more: dict[str, Any] | None = None, **other: Any
) -> pa.Table:
    numbers = range(start, start + rows)
    return pa.table(
        {
            "url": [f"https://a.example/{i}.jpg" for i in numbers],
            text: [f"dog {i}" for i in numbers],
            **(more or {}),
            **other,
        }
    )


def written(folder: Path, *tables: pa.Table) -> Path:
    """Write files as DuckDB does, in a folder."""
    folder.mkdir()
    for i, rows in enumerate(tables):
        with duckdb.connect() as con:
            con.register("rows", rows)
            con.execute(f"COPY rows TO '{folder / f'{i}.parquet'}' (FORMAT parquet)")
    return folder


def found(dataset: Dataset, *columns: str) -> list[tuple[Any, ...]]:
    rows = dataset.table(["url", *columns]).sort_by("url")
    return list(zip(*(rows[c].to_pylist() for c in columns), strict=True))


def bad_texts(values: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


@pytest.mark.parametrize("bad", [False, True], ids=["clean", "with a bad row"])
def test_what_a_file_lacks_is_null(bad: bool, tmp_path: Path, slice_of: Slice) -> None:
    first, second = pairs(3, similarity=[0.5, 0.6, 0.7], mark=[1, 2, 3]), pairs(2, start=3)
    if bad:
        second = pa.concat_tables([second, pa.table({"url": ["ftp://x"], "caption": ["x"]})])
    made = slice_of(written(tmp_path / "t", first, second))
    assert found(made, "similarity", "mark") == [(0.5, 1), (0.6, 2), (0.7, 3), (None, None), (None, None)]
    assert made.info.source["left_out"] == ({"not a URL of http or https": 1} if bad else {})


def test_files_may_call_the_text_by_different_names(tmp_path: Path, slice_of: Slice) -> None:
    scores = {"punsafe": [0.5], "pwatermark": [0.5]}
    parts = pairs(1, more=scores), pairs(1, start=1, text="TEXT", more=scores)
    assert found(slice_of(written(tmp_path / "t", *parts), **{"as": "laion"}), "caption") == [
        ("dog 0",),
        ("dog 1",),
    ]
    made = slice_of(written(tmp_path / "u", pairs(1), pairs(1, start=1, text="text")))
    assert found(made, "caption") == [("dog 0",), ("dog 1",)]
    assert any('caption from "text" in ' in note for note in made.info.ledger[0].notes)


def test_told_columns_have_one_type_and_numbers_the_widest(tmp_path: Path, slice_of: Slice) -> None:
    first = pairs(1, similarity=pa.array([0.5]), width=pa.array([7], pa.int32()), n=pa.array([1], pa.int32()))
    second = pairs(
        1, start=1, similarity=pa.array([0.29], pa.float32()), width=["8"], n=pa.array([1 << 40], pa.int64())
    )
    made = slice_of(written(tmp_path / "t", first, second))
    assert found(made, "similarity", "width", "n") == [(0.5, 7, 1), (0.29, 8, 1 << 40)]


def test_own_columns_of_types_that_clash_are_refused_with_both_files(tmp_path: Path, slice_of: Slice) -> None:
    folder = written(tmp_path / "t", pairs(1, mark=[1]), pairs(1, start=1, mark=[[1, 2]]))
    with pytest.raises(
        DataError, match=r"1\.parquet: column 'mark' is BIGINT\[\], and BIGINT in .*0\.parquet"
    ):
        slice_of(folder)
    empty = written(tmp_path / "u", pairs(1, mark=["a"]))
    pq.write_table(pairs(1, start=1, mark=pa.nulls(1)), empty / "1.parquet")
    assert found(slice_of(empty), "mark") == [("a",), (None,)]


def test_a_column_that_only_later_files_have_is_told_of(tmp_path: Path, slice_of: Slice) -> None:
    made = slice_of(written(tmp_path / "t", pairs(1), pairs(1, start=1, extra=[1])))
    assert "extra" not in made.table().column_names
    [note] = [n for n in made.info.ledger[0].notes if "extra" in n]
    assert "1.parquet has it" in note


def test_clean_files_of_one_schema_are_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    source = table(
        path=str(written(tmp_path / "t", *(pairs(1, start=i) for i in range(4)), pairs(1, start=4, n=[1])))
    )
    query = source.index(fingerprint="").query
    assert query.count("read_parquet") == 2
    assert "UNION ALL" in query


def test_damage_inside_a_file_is_told_with_its_name(tmp_path: Path, slice_of: Slice) -> None:
    folder = written(tmp_path / "t", pa.table({"url": [f"http{'s' * (i % 2)}://a/{i}" for i in range(5_000)],
                                               "caption": [f"dog {i}" for i in range(5_000)]}))  # fmt: skip
    content = bytearray((folder / "0.parquet").read_bytes())
    content[40:2_000] = bytes(1_960)
    (folder / "0.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"0\.parquet: cannot be read"):
        slice_of(folder)


def test_bytes_are_decoded_and_what_is_no_utf8_is_counted(tmp_path: Path, slice_of: Slice) -> None:
    urls = [f"https://a.example/{i}".encode() for i in range(3)]
    rows = pa.table({"url": urls, "caption": ["Zürich".encode(), b"caf\xe9", b"plain"]})
    pq.write_table(rows, tmp_path / "t.parquet")
    made = slice_of(tmp_path / "t.parquet")
    assert found(made, "caption") == [("Zürich",), ("plain",)]
    assert sum(made.info.source["left_out"].values()) == 1


def test_bytes_are_decoded_inside_sql_of_a_layout() -> None:
    chosen = find("wit").select(
        {"image_url": "BLOB", "caption_reference_description": "BLOB"}, where="t.parquet"
    )
    with duckdb.connect() as con:
        file = (
            r"(SELECT 'http://a'::BLOB AS image_url, ' Z\xC3\xBCrich'::BLOB AS caption_reference_description)"
        )
        assert con.sql(f"SELECT {chosen['url']}, {chosen['caption']} FROM {file}").fetchall() == [
            ("http://a", "Zürich")
        ]


@pytest.mark.parametrize("form", ["own", "list", "struct", "map", "dictionary"])
def test_texts_that_are_no_utf8_are_left_out_however_deep(form: str, tmp_path: Path, slice_of: Slice) -> None:
    texts = bad_texts([b"fine", b"caf\xe9", b"good"])
    offsets = pa.array([0, 1, 2, 3], pa.int32())
    column = {
        "own": texts,
        "list": pa.ListArray.from_arrays(offsets, texts),
        "struct": pa.StructArray.from_arrays([texts], ["inner"]),
        "map": pa.MapArray.from_arrays(offsets, pa.array(["a", "b", "c"]), texts),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int8()), texts, safe=False),
    }[form]
    pq.write_table(pairs(3, mark=column), tmp_path / "t.parquet")
    made = slice_of(tmp_path / "t.parquet")
    assert found(made, "caption") == [("dog 0",), ("dog 2",)]
    assert made.info.source["left_out"] == {"not UTF-8": 1}


def test_writers_of_java_are_looked_at(tmp_path: Path, slice_of: Slice) -> None:
    pq.write_table(pairs(2, mark=bad_texts([b"fine", b"caf\xe9"])), tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    by = pq.ParquetFile(tmp_path / "t.parquet").metadata.created_by.encode()
    (tmp_path / "t.parquet").write_bytes(content.replace(by, b"parquet-mr".ljust(len(by))))
    assert pq.ParquetFile(tmp_path / "t.parquet").metadata.created_by.startswith("parquet-mr")
    assert slice_of(tmp_path / "t.parquet").info.source["left_out"] == {"not UTF-8": 1}


def test_statistics_that_are_no_utf8_prove_nothing(tmp_path: Path) -> None:
    pq.write_table(pairs(1).set_column(1, "caption", bad_texts([b"caf\xe9"])), tmp_path / "t.parquet")
    assert not usable.proven_usable(tmp_path / "t.parquet", {"caption": '"caption"'})
    assert usable.proven_usable(tmp_path / "t.parquet", {"url": '"url"'})


@pytest.mark.parametrize("odd", ["http:foo", "httpa://a.example", "https:/a.example", "http;"])
def test_an_odd_url_goes_however_the_files_are_cut(odd: str, tmp_path: Path, slice_of: Slice) -> None:
    urls = ["http://a.example/1", odd, "https://a.example/2"]
    rows = pa.table({"url": urls, "caption": ["a", "b", "c"]})
    whole = slice_of(written(tmp_path / "whole", rows), name="whole")
    cut = slice_of(written(tmp_path / "cut", *(rows.slice(i, 1) for i in range(3))), name="cut")
    for made in (whole, cut):
        assert found(made, "url") == [("http://a.example/1",), ("https://a.example/2",)]
        assert made.info.source["left_out"] == {"not a URL of http or https": 1}


STEPS: list[list[Any]] = [
    [{"sample": {"number": 30}}],
    [{"sample": {"number": 30}}, {"top": {"number": 5, "by": "width"}}],
    [{"clip_score": {"fraction": 0.5}}],
    [{"filter": {"min_words": 1, "keep": "flag"}}, {"where": "rejected IS NULL"}],
    [{"dedup": {"by": "caption"}}],
]  # fmt: skip


TEMPORARY = [
    "_drawn",
    "_in_table",
    "_is_top",
    "_place",
    "_rows_there",
    "_ranks_at",
    "_ranks_key",
    "_reason_to_go",
]


@pytest.mark.parametrize("steps", STEPS[:4], ids=["sample", "top", "clip_score", "filter"])
@pytest.mark.parametrize("bad", [False, True], ids=["clean", "with a bad row"])
def test_columns_called_as_steps_call_theirs_get_another_name(
    steps: list[Any], bad: bool, tmp_path: Path, slice_of: Slice
) -> None:
    numbers = list(range(40))
    told = {"similarity": [i / 40 for i in numbers], "width": numbers}
    plain = pairs(40, more=told)
    taken = [*sorted(GIVEN), *TEMPORARY]
    odd = pairs(40, more=told | dict.fromkeys([*taken, "filename", "place"], numbers))
    if bad:
        plain, odd = (t.set_column(0, "url", [["ftp://x", *t["url"].to_pylist()[1:]]]) for t in (plain, odd))
    pq.write_table(plain, tmp_path / "plain.parquet")
    pq.write_table(odd, tmp_path / "odd.parquet")
    wanted = slice_of(tmp_path / "plain.parquet", steps, name="plain")
    made = slice_of(tmp_path / "odd.parquet", steps, name="odd")
    assert found(made, "caption", "width") == found(wanted, "caption", "width") != []
    names = {f"table_{name}" for name in taken}
    assert names | {"filename", "place"} <= set(made.table().column_names)
    assert all(row[0] == row[1] for row in found(made, "width", "place"))
    assert all(row[0] == row[1] for row in found(made, "width", "table__place"))
    assert all(row[0] == row[1] for row in found(made, "width", "table_file_row_number"))


@pytest.mark.parametrize("names", [["key", "table_key"], ["table_key", "key"]])
def test_no_two_columns_get_one_name(names: list[str]) -> None:
    there = dict.fromkeys(["url", "caption", *names], "VARCHAR")
    chosen = guess(there, where="t").layout.select(there, where="t")
    assert {c: sql for c, sql in chosen.items() if "key" in c} == {
        "table_table_key": '"key"',
        "table_key": '"table_key"',
    }


def test_packed_files_that_are_cut_or_no_such_are_refused(tmp_path: Path) -> None:
    lines = "".join(f"https://a.example/{os.urandom(8).hex()}.jpg,a dog {i}\n" for i in range(3_000)).encode()
    objects = "".join(
        json.dumps({"url": f"https://a/{i}", "caption": os.urandom(9).hex()}) + "\n" for i in range(3_000)
    )
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(lines)
    zst = sink.getvalue().to_pybytes()
    packed = bytearray(gzip.compress(lines))
    packed[30:200] = bytes(170)
    for name, content in (
        ("cut.csv.gz", gzip.compress(lines)[:200]), ("no.csv.gz", lines), ("odd.csv.gz", bytes(packed)),
        ("cut.csv.zst", zst[: len(zst) // 2]), ("no.csv.zst", lines), ("cut.json.gz", gzip.compress(lines)[:200]),
        ("late.jsonl.gz", gzip.compress(objects.encode())[:-9]), ("no.jsonl.zst", lines),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name) as refused:
            table(path=str(tmp_path / name)).index(fingerprint="")
        assert refused.value.hint


def test_a_file_with_its_old_size_and_time_is_read_again(tmp_path: Path, slice_of: Slice) -> None:
    path = tmp_path / "t.csv"
    path.write_text("url,caption\nhttps://a/1,one\n")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    assert found(slice_of(path), "caption") == [("one",)]
    (tmp_path / "new").write_text("url,caption\nhttps://a/1,two\n")
    os.utime(tmp_path / "new", ns=times)
    os.replace(tmp_path / "new", path)
    assert found(slice_of(path, name="again"), "caption") == [("two",)]


UID = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"


@pytest.mark.parametrize("form", ["lines", "list"])
def test_texts_of_json_stay_as_they_are(form: str, tmp_path: Path, slice_of: Slice) -> None:
    rows = [
        {"url": f"https://a/{i}", "caption": f"dog {i}", "uid": UID, "day": "2020-01-01", "at": "2020-01-01T10:00:00Z",
         "more": {"uid": UID, "days": ["2020-1-2"]}}
        for i in range(3)
    ]  # fmt: skip
    path = tmp_path / ("t.jsonl" if form == "lines" else "t.json")
    path.write_text("\n".join(map(json.dumps, rows)) if form == "lines" else json.dumps(rows))
    made = slice_of(path)
    more = {"uid": UID, "days": ["2020-1-2"]}
    assert found(made, "uid", "day", "at", "more") == [(UID, "2020-01-01", "2020-01-01T10:00:00Z", more)] * 3


def test_types_of_json_are_those_of_the_plan(tmp_path: Path, slice_of: Slice) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    for i, uid in enumerate(["seven", 7, None]):
        row = {"url": f"https://a/{i}", "caption": f"dog {i}", "uid": uid, "score": i or 0.5}
        (folder / f"{i}.jsonl").write_text(json.dumps(row) + "\n")
    made = slice_of(folder)
    assert found(made, "uid", "score") == [("seven", 0.5), ("7", 1.0), (None, 2.0)]
    (folder / "0.jsonl").write_text(json.dumps({"url": "https://a/0", "caption": "dog", "uid": 1}) + "\n")
    (folder / "1.jsonl").write_text(json.dumps({"url": "https://a/1", "caption": "dog", "uid": "x"}) + "\n")
    with pytest.raises(DataError, match=r"1\.jsonl: column 'uid' is VARCHAR, and BIGINT in .*0\.jsonl"):
        slice_of(folder)


def test_a_document_is_known_without_reading_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {
        '[{"a": 1}]': (True, True), ' \n[\n{"a": 1}]': (True, True), '{"a": [\n{"b": 1},\n{"b": 2}]}': (True, False),
        '{"a": 1}\n{"a": 2}\n': (False, False), '\ufeff{"a": 1}\n\n{"a": 2}': (False, False),
        '{\n"a": 1}': (True, False), '{"a": 1}': (True, False), "no json": (True, False),
    }  # fmt: skip
    for content, wanted in cases.items():
        for ending, document in zip(("json", "jsonl"), wanted, strict=True):
            (tmp_path / f"t.{ending}").write_text(content)
            assert jsons.is_document(tmp_path / f"t.{ending}") is document, (content, ending)
    monkeypatch.setattr(jsons.json, "loads", lambda *_: pytest.fail("parsed"))
    (tmp_path / "long.json").write_text(json.dumps([{"a": "x" * 100}] * 50_000))
    assert jsons.is_document(tmp_path / "long.json")


@pytest.mark.parametrize(
    "name", ["a{b}.csv", "a{1,2}.csv", "part[1].csv", "all*.csv", "why?.csv", "set[1]{x}"]
)
def test_what_is_there_is_no_pattern(name: str, tmp_path: Path, slice_of: Slice) -> None:
    path = tmp_path / name
    if "." not in name:
        path.mkdir()
        path = path / "t.csv"
    path.write_text("url,caption\nhttps://a/1,one\n")
    (tmp_path / "part1.csv").write_text("url,caption\nhttps://a/2,other\n")
    assert found(slice_of(tmp_path / name), "caption") == [("one",)]


def test_names_of_columns_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("na\x1b[31mme,size\nx,1\n")
    for options in ({}, {"as": "laion"}):
        recipe = parse({"name": "a", "source": {"table": str(tmp_path / "t.csv"), **options}})
        with pytest.raises(RecipeError) as refused:
            plan(recipe)
        assert "\x1b" not in f"{refused.value} {refused.value.hint}"
        assert "na\\x1b[31mme" in f"{refused.value} {refused.value.hint}"
