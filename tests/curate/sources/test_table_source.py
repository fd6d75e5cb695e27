"""Tables of URLs as sources: what becomes a row, what is left out and why, and that draws are the same everywhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
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
from curate.datasets.diffs import chain
from curate.errors import DataError, RecipeError
from curate.recipes.recipe import parse


def laion(rows: int, *, start: int = 0) -> pa.Table:
    """Rows in LAION's layout: three of four in English, similarity from 0.20 to 0.40."""
    numbers = range(start, start + rows)
    return pa.table(
        {
            "SAMPLE_ID": pa.array(numbers, pa.int64()),
            "URL": [f"https://host{i % 7}.example/{i}.jpg" for i in numbers],
            "TEXT": [f"a photo of a dog {i}" for i in numbers],
            "HEIGHT": pa.array([100 + i % 50 for i in numbers], pa.int32()),
            "WIDTH": pa.array([200 + i % 50 for i in numbers], pa.int32()),
            "LICENSE": ["?"] * rows,
            "NSFW": ["UNLIKELY" if i % 10 else "NSFW" for i in numbers],
            "similarity": [0.2 + (i * 37 % 200) / 1000 for i in numbers],
            "LANGUAGE": ["en" if i % 4 else "de" for i in numbers],
        }
    )


@pytest.fixture
def slice_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    """Build a slice of a table: `slice_of(path, [step, …], name="a", as="laion")`."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))

    def make(path: Any, steps: list[Any] | None = None, name: str = "slice", **options: Any) -> Dataset:
        source = {"table": [str(p) for p in path] if isinstance(path, list) else str(path), **options}
        recipe = parse({"name": name, "source": source, "steps": steps or []})
        [built] = build(recipe, tmp_path / "sets" / name, overlay=True, replace=True)
        return built.dataset

    return make


def keys(dataset: Dataset) -> set[str]:
    return set(dataset.table(["key"])["key"].to_pylist())


def md5(url: str, caption: str) -> str:
    return hashlib.md5(f"{url}\n{caption}".encode()).hexdigest()


def test_a_row_has_the_tables_columns_and_a_key_from_url_and_text(
    tmp_path: Path, slice_of: Callable[..., Dataset]
) -> None:
    pq.write_table(laion(20), tmp_path / "t.parquet")
    rows = slice_of(tmp_path / "t.parquet", **{"as": "laion"}).table().to_pylist()
    assert len(rows) == 20
    [row] = [r for r in rows if r["sample_id"] == 10]
    assert row == {
        "key": md5("https://host3.example/10.jpg", "a photo of a dog 10"), "file": None, "offset": None, "size": None,
        "ext": None, "width": 210, "height": 110, "label": None, "caption": "a photo of a dog 10", "split": None,
        "language": "en", "license": "?", "nsfw": "NSFW", "sample_id": 10, "similarity": pytest.approx(0.37),
        "url": "https://host3.example/10.jpg",
    }  # fmt: skip


def test_rows_that_cannot_be_used_are_counted_with_their_reason(
    tmp_path: Path, slice_of: Callable[..., Dataset]
) -> None:
    pairs = [
        ("http://a.example/1.jpg", "fine"), ("HTTPS://A.example/2.jpg", "fine too"), (None, "no url"), (" ", "blank"),
        ("ftp://a.example/3.jpg", "x"), ("/etc/passwd", "x"), ("UNLIKELY", "x"), ("httpx://a.example", "x"),
        ("http://a.example/4.jpg", None), ("http://a.example/5.jpg", " \t\n"), ("http://a.example/6.jpg", "  indented"),
    ]  # fmt: skip
    table = pa.table({"URL": [p[0] for p in pairs], "TEXT": [p[1] for p in pairs]})
    pq.write_table(table, tmp_path / "t.parquet")
    made = slice_of(tmp_path / "t.parquet")
    assert sorted(made.table(["caption"])["caption"].to_pylist()) == ["  indented", "fine", "fine too"]
    assert made.info.source["left_out"] == {"no URL": 2, "not a URL of http or https": 4, "no text": 2}
    again = slice_of(tmp_path / "t.parquet", name="again")  # from what is known of the file
    assert again.digest == made.digest
    assert again.info.source == made.info.source


def test_texts_that_are_not_utf8_are_counted_in_every_form(
    tmp_path: Path, slice_of: Callable[..., Dataset]
) -> None:
    lines = [b"good", b"caf\xe9", b"fine"]
    urls = [f"http://a.example/{i}.jpg".encode() for i in range(3)]
    as_text = [
        pa.Array.from_buffers(pa.string(), 3, pa.array(v, pa.binary()).buffers()) for v in (urls, lines)
    ]
    pq.write_table(pa.table(as_text, names=["URL", "TEXT"]), tmp_path / "t.parquet")
    rows = list(zip(urls, lines, strict=True))
    (tmp_path / "t.tsv").write_bytes(b"URL\tTEXT\n" + b"".join(u + b"\t" + t + b"\n" for u, t in rows))
    (tmp_path / "t.csv").write_bytes(b"URL,TEXT\n" + b"".join(u + b',"' + t + b'"\n' for u, t in rows))
    (tmp_path / "t.jsonl").write_bytes(
        b"".join(b'{"URL": "' + u + b'", "TEXT": "' + t + b'"}\n' for u, t in rows)
    )
    for ending in ("parquet", "tsv", "csv", "jsonl"):
        made = slice_of(tmp_path / f"t.{ending}", name=ending)
        assert (len(made), made.info.source["left_out"]) == (2, {"not UTF-8": 1}), ending


def test_the_same_rows_have_the_same_keys_in_every_form(
    tmp_path: Path, slice_of: Callable[..., Dataset]
) -> None:
    captions = ['She said "hi", and left', "tabs and\\backslashes", "naïve 日本", "it's 5\" wide", "plain"]
    rows = [(f"http://a.example/{i}.jpg", c) for i, c in enumerate(captions)]
    table = pa.table({"url": [r[0] for r in rows], "caption": [r[1] for r in rows]})
    pq.write_table(table, tmp_path / "t.parquet")
    quoted = "".join(f'{u},"{c.replace(chr(34), chr(34) * 2)}"\n' for u, c in rows)
    bare = "".join(f"{u}\t{c}\n" for u, c in rows)
    objects = [json.dumps({"url": u, "caption": c}, ensure_ascii=False) for u, c in rows]
    files = {
        "a.csv": "url,caption\n" + quoted, "b.csv": quoted, "a.tsv": "url\tcaption\n" + bare, "b.tsv": bare,
        "a.jsonl": "\n".join(objects), "a.json": f"[{','.join(objects)}]", "b.json": "\n".join(objects),
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        (tmp_path / f"packed-{name}.gz").write_bytes(gzip.compress(content.encode()))
        with pa.CompressedOutputStream(str(tmp_path / f"packed-{name}.zst"), "zstd") as stream:
            stream.write(content.encode())
    wanted = {md5(u, c) for u, c in rows}
    assert keys(slice_of(tmp_path / "t.parquet")) == wanted
    for name in [*files, *(f"packed-{n}{e}" for n in files for e in (".gz", ".zst"))]:
        assert keys(slice_of(tmp_path / name, name=name.replace(".", "-"))) == wanted, name


def test_slices_nest_and_do_not_depend_on_how_the_table_is_cut(
    tmp_path: Path, slice_of: Callable[..., Dataset]
) -> None:
    whole = laion(5_000)
    pq.write_table(whole, tmp_path / "whole.parquet", row_group_size=700)
    parts = tmp_path / "parts"
    parts.mkdir()
    order = list(range(5_000))
    random.Random(0).shuffle(order)
    for i in range(4):
        pq.write_table(whole.take(order[i::4]), parts / f"{i}.parquet")
    steps: list[Any] = [{"filter": {"preset": "laion2b"}}]
    sets = [
        slice_of(tmp_path / "whole.parquet", [*steps, {"sample": {"number": n}}], name=f"n-{n}")
        for n in (100, 500, 1_500)
    ]
    assert [len(s) for s in sets] == [100, 500, 1_500]
    assert [d.relation for d in chain([s.path for s in sets])] == ["⊂", "⊂"]
    cut = slice_of(parts / "*.parquet", [*steps, {"sample": {"number": 500}}], name="cut")
    assert cut.digest == sets[1].digest
    assert [s.rows_out for s in cut.info.ledger] == [5_000, 2_250, 500]
    assert cut.info.ledger[1].refused == {"language is not en": 1_250, "similarity below 0.28": 1_500}


def test_a_slice_is_what_python_would_draw(tmp_path: Path, slice_of: Callable[..., Dataset]) -> None:
    from curate.rows.chance import chance

    table = laion(2_000)
    pq.write_table(table, tmp_path / "t.parquet")
    drawn = keys(slice_of(tmp_path / "t.parquet", [{"sample": {"number": 300}}]))
    every = [md5(u, t) for u, t in zip(table["URL"].to_pylist(), table["TEXT"].to_pylist(), strict=True)]
    assert drawn == set(sorted(every, key=lambda k: (chance(k, 0, "sample"), k))[:300])


def test_of_rows_that_say_the_same_one_stays(tmp_path: Path, slice_of: Callable[..., Dataset]) -> None:
    twice = pa.concat_tables([laion(100), laion(300), laion(100)])
    pq.write_table(twice, tmp_path / "t.parquet")
    whole = slice_of(tmp_path / "t.parquet")
    assert len(whole) == 300
    assert any("200 rows that say again" in n for n in whole.info.ledger[-1].notes)
    some = slice_of(
        tmp_path / "t.parquet", [{"sample": {"number": 290}}], name="some"
    )  # more than half are twice
    assert len(keys(some)) == 290
    with pytest.raises(DataError, match="301 rows wanted of 500, of which 300 differ"):
        slice_of(tmp_path / "t.parquet", [{"sample": {"number": 301}}], name="more")


STEPS: list[list[Any]] = [
    [{"where": "width > 220"}],
    [{"filter": {"min_words": 3, "min_side": 120, "keep": "flag"}}, {"where": "rejected IS NULL"}],
    [{"clip_score": {"fraction": 0.3}}],
    [{"clip_score": {"threshold": 0.3}}, {"sample": {"fraction": 0.5}}],
    [{"compute": {"columns": {"caption": "upper(caption)", "area": "width * height"}}}],
    [{"compute": {"columns": {"area": "width * height"}}}, {"where": "area > 30000"},
     {"top": {"number": 5, "by": "area"}}],
    [{"sample": {"number": 100}}, {"truncate": {"words": 2}}],
    [{"truncate": {"words": 2}}, {"sample": {"number": 100}}],
    [{"text_based": None}],
    [{"match": {"classes": ["dog.n.01"], "keep": "flag"}}],
]  # fmt: skip


@pytest.mark.parametrize("steps", STEPS, ids=[next(iter(s[0])) + str(i) for i, s in enumerate(STEPS)])
def test_every_step_does_the_same_to_a_table_as_to_a_dataset_of_its_rows(
    steps: list[Any], tmp_path: Path, slice_of: Callable[..., Dataset]
) -> None:
    pq.write_table(laion(400), tmp_path / "t.parquet")
    rows = slice_of(tmp_path / "t.parquet", name="rows")
    recipe = parse({"name": "derived", "source": {"dataset": str(rows.path)}, "steps": steps})
    derived = build(recipe, tmp_path / "derived", overlay=True)[0].dataset
    streamed = slice_of(tmp_path / "t.parquet", steps)
    assert 0 < len(streamed) <= 400
    assert streamed.digest == derived.digest
    told, kept = (d.info.ledger[1:] for d in (streamed, derived))
    assert [s.model_dump() for s in told] == [s.model_dump() for s in kept]


def test_equal_draws_of_several_tables(tmp_path: Path) -> None:
    pq.write_table(laion(1_000), tmp_path / "web.parquet")
    tsv = "".join(f"a thing {i}\thttp://cc.example/{i}.jpg\n" for i in range(400))
    (tmp_path / "cc.tsv").write_text(tsv)
    parts = {
        "web": {"table": str(tmp_path / "web.parquet"), "as": "laion"},
        "cc": {"table": str(tmp_path / "cc.tsv"), "as": "cc3m"},
    }
    document = {
        "name": "m",
        "source": {"union": {"parts": parts}},
        "steps": [{"mix": {"counts": {"web": 250, "cc": 250}}}],
    }
    made = build(parse(document), tmp_path / "m", overlay=True)[0].dataset
    found = made.table(["source", "key", "url"]).to_pylist()
    assert sorted({r["source"] for r in found}) == ["cc", "web"]
    assert sum(r["source"] == "web" for r in found) == 250 == len(found) / 2
    document["steps"] = [{"mix": {"shares": {"web": 0.5, "cc": 0.5}, "number": 100}}]
    fewer = build(parse(document), tmp_path / "f", overlay=True)[0].dataset
    assert len(fewer) == 100
    assert keys(fewer) < keys(made)


def test_a_plan_says_what_it_guessed_and_reads_nothing(
    tmp_path: Path, run_curate: Callable[..., Any], write_recipe: Callable[..., Path]
) -> None:
    (tmp_path / "t.csv").write_text("id,image_url,alt\n1,http://a.example/1.jpg,a cat\n")
    recipe = write_recipe(
        {"source": {"table": str(tmp_path / "t.csv")}, "steps": [{"sample": {"number": 1}}]}
    )
    result = run_curate("build", recipe, "--plan")
    assert result.exit_code == 0
    assert "url from 'image_url', caption from 'alt'" in result.stdout


def test_rows_without_bytes_make_no_shards(
    tmp_path: Path,
    slice_of: Callable[..., Dataset],
    run_curate: Callable[..., Any],
    write_recipe: Callable[..., Path],
) -> None:
    pq.write_table(laion(10), tmp_path / "t.parquet")
    recipe = write_recipe({"source": {"table": str(tmp_path / "t.parquet")}})
    refused = run_curate("build", recipe, "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "curate fetch" in refused.stderr
    assert not (tmp_path / "out").exists()
    made = slice_of(tmp_path / "t.parquet")
    for command in (("shard", made.path), ("train", "clip", made.path, "--out", tmp_path / "run")):
        said = run_curate(*command)
        assert said.exit_code == 3
        assert "10 of 10 rows are URLs whose images nobody has fetched" in said.stderr
    assert run_curate("verify", made.path).exit_code == 0
    again = parse({"name": "d", "source": {"dataset": str(made.path)}, "steps": [{"dedup": {"by": "phash"}}]})
    with pytest.raises(DataError, match="10 rows are URLs whose images nobody has fetched"):
        build(again, tmp_path / "d", overlay=True)


def test_what_is_no_table_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "odd.xlsx").write_bytes(b"PK")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "none.csv").write_text("name,size\nx,1\n")
    for name, fault in (
        ("absent.csv", "no such table"), ("odd.xlsx", "not a table by its ending"), ("empty.csv", "is empty"),
        ("cut.parquet", "cannot be read as a table"), ("none.csv", "no column looks like the url"),
    ):  # fmt: skip
        recipe = parse({"name": "a", "source": {"table": str(tmp_path / name)}})
        with pytest.raises((RecipeError, DataError), match=fault) as refused:
            plan(recipe)
        assert name in str(refused.value)
        assert refused.value.hint
    with pytest.raises(RecipeError, match="layout 'laion' has it as") as wrong:
        plan(parse({"name": "a", "source": {"table": str(tmp_path / "none.csv"), "as": "laion"}}))
    assert "name, size" in str(wrong.value.hint)


def test_a_table_that_changed_is_read_again(tmp_path: Path, slice_of: Callable[..., Dataset]) -> None:
    pq.write_table(laion(10), tmp_path / "t.parquet")
    first = slice_of(tmp_path / "t.parquet", name="first")
    pq.write_table(laion(12, start=5), tmp_path / "t.parquet")
    second = slice_of(tmp_path / "t.parquet")
    assert (len(first), len(second)) == (10, 12)
    assert len(keys(first) & keys(second)) == 5


def test_real_rows_are_as_many_as_pandas_counts(shared: Path, slice_of: Callable[..., Dataset]) -> None:
    file = shared / "data" / "tables" / "laion_precursor_6000.parquet"
    made = slice_of(file, **{"as": "laion"})
    assert len(made) == 5_999  # one row has its flag for nudity where its URL should be
    assert made.info.source["left_out"] == {"not a URL of http or https": 1}
    with duckdb.connect() as con:
        wanted = con.execute(
            f"SELECT md5(URL || chr(10) || TEXT) FROM '{file}' WHERE URL LIKE 'http%'"
        ).fetchall()
    assert keys(made) == {key for (key,) in wanted}


def test_a_table_in_a_store_is_copied_once(
    tmp_path: Path, slice_of: Callable[..., Dataset], memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(laion(30), tmp_path / "t.parquet")
    memory.pipe_file("/tables/t.parquet", (tmp_path / "t.parquet").read_bytes())
    try:
        here = slice_of(tmp_path / "t.parquet", name="here")
        there = slice_of("memory://tables/t.parquet", name="there")
        assert there.digest == here.digest
        monkeypatch.setattr(type(memory), "get_file", lambda *_: pytest.fail("copied again"))
        assert slice_of("memory://tables/*.parquet", name="again").digest == here.digest
    finally:
        memory.rm("/tables", recursive=True)
