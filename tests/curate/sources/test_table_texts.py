"""Tables of URLs and texts as people have them: several texts a row, a bad row, odd dividers, numbers that misfit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.builds.build import build
from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from curate.recipes.recipe import parse
from curate.sources.table import usable

Slice = Callable[..., Dataset]
URL = "https://a.example/{}.jpg".format


@pytest.fixture
def slice_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slice:
    """Build the rows of a table: `slice_of(path, [step, …], as="laion")`."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))

    def make(path: Any, steps: list[Any] | None = None, **options: Any) -> Dataset:
        recipe = parse({"name": "s", "source": {"table": str(path), **options}, "steps": steps or []})
        return build(recipe, tmp_path / "sets" / "s", overlay=True, replace=True)[0].dataset

    return make


def texts(dataset: Dataset, *columns: str) -> list[Any]:
    """Return the rows' values in the order of their URLs."""
    columns = columns or ("caption",)
    rows = dataset.table(["url", *columns]).sort_by("url").to_pylist()
    return [row[columns[0]] if len(columns) == 1 else tuple(row[c] for c in columns) for row in rows]


def json_lines(path: Path, captions: list[Any], **more: Any) -> Path:
    path.write_text(
        "".join(json.dumps({"url": URL(i), "caption": c} | more) + "\n" for i, c in enumerate(captions))
    )
    return path


@pytest.mark.parametrize("odd", [2024, 0.5, True])
def test_one_caption_that_is_a_number_leaves_the_others_as_they_are(
    odd: Any, tmp_path: Path, slice_of: Slice
) -> None:
    made = slice_of(json_lines(tmp_path / "t.jsonl", ["a photo", odd, 'a "big" dog']))
    assert texts(made) == ["a photo", json.dumps(odd), 'a "big" dog']


def test_captions_of_json_that_are_lists_become_captions(tmp_path: Path, slice_of: Slice) -> None:
    captions = ["one", ["a", "", None, "b"], [" ", "c"], [], None, 7, ["d", 8]]
    made = slice_of(json_lines(tmp_path / "t.jsonl", captions))
    wanted = [("one", ["one"]), ("a", ["a", "b"]), ("c", ["c"]), ("7", ["7"]), ("d", ["d", "8"])]
    assert texts(made, "caption", "captions") == wanted
    assert made.info.source["left_out"] == {"no text": 2}


def test_a_caption_of_json_that_is_an_object_is_counted(tmp_path: Path, slice_of: Slice) -> None:
    captions = ["one", {"text": "a"}, ["b", {"text": "c"}], ["d"]]
    made = slice_of(json_lines(tmp_path / "t.jsonl", captions))
    assert texts(made, "caption", "captions") == [("one", ["one"]), ("d", ["d"])]
    assert made.info.source["left_out"] == {"an object or a list where a text is expected": 2}


def test_one_file_may_have_a_text_and_the_next_a_list(tmp_path: Path, slice_of: Slice) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    json_lines(folder / "0.jsonl", [["a", "b"]])
    (folder / "1.jsonl").write_text(json.dumps({"url": URL(1), "caption": "c"}))
    assert texts(slice_of(folder), "caption", "captions") == [("a", ["a", "b"]), ("c", None)]


@pytest.mark.parametrize("name", ["caption", "captions", "text"])
def test_a_list_of_texts_of_parquet_is_captions_and_its_first_the_caption(
    name: str, tmp_path: Path, slice_of: Slice
) -> None:
    lists = [["a cat", "one cat"], ["", None, "a dog"], [], None]
    pq.write_table(pa.table({"url": [URL(i) for i in range(4)], name: lists}), tmp_path / "t.parquet")
    made = slice_of(tmp_path / "t.parquet")
    assert texts(made, "caption", "captions") == [("a cat", ["a cat", "one cat"]), ("a dog", ["a dog"])]
    assert made.info.source["left_out"] == {"no text": 2}
    assert made.info.columns["captions"] == "VARCHAR[]"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([{"text": "a", "id": 1}, {"text": "b", "id": 2}], ["a", "b"]),
        ([[{"raw": "a"}, {"raw": "b"}], [{"raw": "c"}]], ["a", "c"]),
        ([[1, 2], [3]], ["1", "3"]),
        ([[["a"]], [["b", "c"]]], None),
    ],
)
def test_other_captions_are_refused_with_sql_that_makes_texts_of_them(
    values: list[Any],
    wanted: list[str] | None,
    tmp_path: Path,
    slice_of: Slice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pq.write_table(pa.table({"url": [URL(0), URL(1)], "caption": values}), tmp_path / "t.parquet")
    with pytest.raises(RecipeError, match=r"t\.parquet: column 'caption' is .*, and not a text") as refused:
        slice_of(tmp_path / "t.parquet")
    if wanted:
        monkeypatch.chdir(tmp_path)
        duckdb.sql(str(refused.value.hint).partition("DuckDB: ")[2])
        assert texts(slice_of(tmp_path / "texts.parquet")) == wanted


def test_a_list_of_urls_in_a_cell_is_refused_with_sql_that_makes_rows(
    tmp_path: Path, slice_of: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"url": [[URL(0), URL(1)]], "caption": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(RecipeError, match=r"column 'url' is VARCHAR\[\], and not a URL") as refused:
        slice_of(tmp_path / "t.parquet")
    monkeypatch.chdir(tmp_path)
    duckdb.sql(str(refused.value.hint).partition("DuckDB: ")[2])
    assert texts(slice_of(tmp_path / "texts.parquet")) == ["a", "a"]


def test_lists_and_structs_that_are_no_captions_are_carried_as_they_are(
    tmp_path: Path, slice_of: Slice
) -> None:
    more = {
        "tags": [["x"], []],
        "box": [{"w": 1}, {"w": 2}],
        "language": [["en"], ["de", "fr"]],
        "captions": [[1], [2]],
    }
    pq.write_table(pa.table({"url": [URL(0), URL(1)], "caption": ["a", "b"], **more}), tmp_path / "t.parquet")
    made = slice_of(tmp_path / "t.parquet")
    names = ("tags", "box", "table_language", "table_captions")
    assert texts(made, *names) == list(zip(*more.values(), strict=True))


def test_a_key_that_comes_late_in_json_lines_is_a_column(tmp_path: Path, slice_of: Slice) -> None:
    rows = [
        {"url": URL(i), "caption": "dog"} | ({"nsfw": "UNSAFE"} if i >= 21_000 else {}) for i in range(21_010)
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(slice_of(tmp_path / "t.jsonl", [{"where": "nsfw IS NULL OR nsfw <> 'UNSAFE'"}])) == 21_000


def csv_of(rows: list[str]) -> bytes:
    return ("url,caption\n" + "\n".join(rows) + "\n").encode()


@pytest.mark.parametrize(
    "bad", ['"unclosed', 'a "quoted" end,x', '"closed" too early', '"x\n"y', "one,cell,more", ""]
)
@pytest.mark.parametrize("place", [0, 100, 21_500])
def test_a_bad_row_of_a_csv_costs_its_own_line_wherever_it_stands(
    bad: str, place: int, tmp_path: Path, slice_of: Slice
) -> None:
    rows = [f'{URL(i)},"text, {i}"' if i % 7 == 0 else f"{URL(i)},text {i}" for i in range(22_000)]
    rows[place] = f"{URL(place)},{bad}" if bad else URL(place)
    (tmp_path / "t.csv").write_bytes(csv_of(rows))
    made = slice_of(tmp_path / "t.csv")
    assert len(made) == 21_999
    assert made.info.source["left_out"] == {"not a row of the table": 1 + bad.count("\n")}


def test_quotation_marks_behind_backslashes_beside_doubled_ones_are_read(
    tmp_path: Path, slice_of: Slice
) -> None:
    rows = [
        f"{URL(0)},plain",
        f'{URL(1)},"properly, ""quoted"""',
        f'{URL(2)},"a \\"slashed\\" word"',
        f"{URL(3)},end",
    ]
    (tmp_path / "t.csv").write_bytes(csv_of(rows))
    made = slice_of(tmp_path / "t.csv")
    assert texts(made) == ["plain", 'properly, "quoted"', 'a "slashed" word', "end"]
    assert made.info.source["left_out"] == {}


def test_a_divider_at_the_end_of_a_row_is_no_cell_beside_a_bad_row_or_not(
    tmp_path: Path, slice_of: Slice
) -> None:
    rows = [f"{URL(0)},a,", f'{URL(1)},"b, c",', f"{URL(2)},d"]
    for name, more in (("t", []), ("u", [f'{URL(3)},"bad'])):
        (tmp_path / f"{name}.csv").write_bytes(csv_of([*rows, *more]))
        made = slice_of(tmp_path / f"{name}.csv")
        assert texts(made) == ["a", "b, c", "d"]
        assert sum(made.info.source["left_out"].values()) == len(more)


def test_texts_over_several_lines_stay_whole_beside_a_bad_row(tmp_path: Path, slice_of: Slice) -> None:
    out = io.StringIO()
    wanted = ["two\nlines", 'three\n"quoted"\r\nlines', "one"]
    csv.writer(out, lineterminator="\n").writerows(
        [["url", "caption"], *zip(map(URL, range(3)), wanted, strict=True)]
    )
    (tmp_path / "t.csv").write_bytes(
        out.getvalue().encode() + b'https://a.example/9.jpg,"bad\nhttps://b,end\n'
    )
    made = slice_of(tmp_path / "t.csv")
    assert texts(made) == [*wanted, "end"]
    assert made.info.source["left_out"] == {"not a row of the table": 1}


@pytest.mark.parametrize("divider", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["csv", "txt"])
def test_a_csv_is_read_however_it_is_divided_and_encoded(
    divider: str, encoding: str, ending: str, tmp_path: Path, slice_of: Slice
) -> None:
    wanted = ["a", "b, c; d", "größe", 'x "y"']
    out = io.StringIO()
    rows = [["url", "caption"], *zip(map(URL, range(4)), wanted, strict=True)]
    csv.writer(out, delimiter=divider).writerows(rows)
    (tmp_path / f"t.{ending}").write_bytes(out.getvalue().encode(encoding))
    assert texts(slice_of(tmp_path / f"t.{ending}")) == wanted


def test_json_in_utf_16_is_read(tmp_path: Path, slice_of: Slice) -> None:
    rows = [{"url": URL(i), "caption": c} for i, c in enumerate(["ä", "b"])]
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-16"
    )
    (tmp_path / "t.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-16")
    for name in ("t.jsonl", "t.json"):
        assert texts(slice_of(tmp_path / name)) == ["ä", "b"]


def test_a_list_of_urls_is_refused_whether_they_have_commas_or_not(tmp_path: Path, slice_of: Slice) -> None:
    for name, url in (
        ("plain", "https://a.example/{}.jpg"),
        ("commas", "https://a.example/u={},175&fm=15&gp=0.jpg"),
    ):
        (tmp_path / f"{name}.txt").write_text("".join(url.format(i) + "\n" for i in range(6)))
        with pytest.raises(RecipeError, match="each line is a URL and nothing else") as refused:
            slice_of(tmp_path / f"{name}.txt")
        assert "url,caption" in str(refused.value.hint)
    (tmp_path / "words.csv").write_text("".join(f"{URL(i)},word{i}\n" for i in range(3)))
    assert texts(slice_of(tmp_path / "words.csv")) == ["word0", "word1", "word2"]


def test_what_stands_hidden_in_a_folder_of_tables_is_no_table(tmp_path: Path, slice_of: Slice) -> None:
    folder = tmp_path / ".kept" / "_t"
    (folder / "_temporary").mkdir(parents=True)
    (folder / ".checkpoints").mkdir()
    (folder / "0.csv").write_bytes(csv_of([f"{URL(0)},a"]))
    for name in (".export.json", "_metadata.parquet", "_temporary/0.csv", ".checkpoints/0.csv", "_SUCCESS"):
        (folder / name).write_text("no table")
    assert texts(slice_of(folder)) == ["a"]
    (folder / "notes.txt").write_text("no table")
    with pytest.raises((RecipeError, DataError), match=r"notes\.txt"):
        slice_of(folder)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_numbers_that_do_not_fit_are_null_and_counted(form: str, tmp_path: Path, slice_of: Slice) -> None:
    widths = ["640", "3000000000", "200.5", "12.0", "-1", "many", "", "nan", "9" * 30]
    similar = ["0.29", "high", "1e-3", "nan", "", "0", "-1", "1", ".5"]
    rows = [{"url": URL(i), "caption": "dog", "width": w, "similarity": s}
            for i, (w, s) in enumerate(zip(widths, similar, strict=True))]  # fmt: skip
    path = tmp_path / f"t.{form}"
    if form == "csv":
        with open(path, "w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    made = slice_of(path)
    assert texts(made, "width") == [640, None, None, 12, None, None, None, None, None]
    assert [repr(s) for s in texts(made, "similarity")] == [
        "0.29", "None", "0.001", "None", "None", "0.0", "-1.0", "1.0", "0.5",
    ]  # fmt: skip
    notes = [note for note in made.info.ledger[0].notes if "NULL" in note]
    assert len(notes) == 2
    assert "5 values of 'width'" in notes[0]
    assert "no whole number from 0 and below 2^31" in notes[0]
    assert notes[1].startswith(
        "1 values of 'similarity' are NULL, for they are no number (such as 'high' in "
    )


def test_numbers_of_parquet_that_its_statistics_prove_are_not_read(
    tmp_path: Path, slice_of: Slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"url": [URL(0), URL(1)], "caption": ["a", "b"], "width": [2**31 - 1, 5], "height": [1.0, 2.5]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert usable._proven_small(tmp_path / "t.parquet", "width", "BIGINT")
    made = slice_of(tmp_path / "t.parquet")
    assert texts(made, "width", "height") == [(2**31 - 1, 1), (5, None)]
    pq.write_table(pa.table(table | {"width": [2**31, 5]}), tmp_path / "u.parquet")
    assert not usable._proven_small(tmp_path / "u.parquet", "width", "BIGINT")


def test_types_of_a_table_are_pandas_types(tmp_path: Path, slice_of: Slice) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({
        "url": [URL(i) for i in range(300)], "caption": [f"dog {i}" for i in range(300)],
        "n": range(300), "x": [i / 7 for i in range(300)], "b": [i % 2 == 0 for i in range(300)],
        "id": [2**62 + i for i in range(300)], "tags": [["a"] * (i % 3) for i in range(300)],
    })  # fmt: skip
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True, double_precision=15)
    read = pd.read_json(tmp_path / "t.jsonl", orient="records", lines=True, precise_float=True)
    made = slice_of(tmp_path / "t.jsonl").table().to_pandas().sort_values("n")
    for name in ("n", "b", "id"):
        assert made[name].to_list() == read[name].to_list(), name
    assert made["x"].to_list() == pytest.approx(read["x"].to_list(), rel=1e-14)
    assert [list(v) for v in made["tags"]] == read["tags"].to_list()
