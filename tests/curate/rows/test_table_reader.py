"""The reader of tables: types are decided by all rows, and nothing in a table changes on the way."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curate.builds.step import allow_only
from curate.errors import DataError
from curate.rows import readers
from curate.rows.readers.dialects import dialect
from curate.rows.readers.jsons import json_types
from curate.rows.readers.repairs import rows_of
from curate.rows.relation import columns_of

LATE = 25_000  # rows; DuckDB guesses types by the first 20,480


@pytest.fixture
def con() -> Iterator[Any]:
    with duckdb.connect() as connection:
        yield connection


def column(con: Any, path: Path, name: str = "v", **options: Any) -> tuple[str, list[Any]]:
    """Return the type of a column, and its values in the file's order."""
    con.execute("DROP VIEW IF EXISTS t")
    readers.make_view(con, "t", str(path), **{"columns": None, "texts": (), **options})
    return columns_of(con, "t")[name], [v for (v,) in con.execute(f"SELECT {name} FROM t").fetchall()]


def late(values: list[str], first: str = "1") -> str:
    return "k,v\n" + "".join(f"a,{first}\n" for _ in range(LATE)) + "".join(f"b,{v}\n" for v in values)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["0.35", "1e-3", "-2"], "DOUBLE"),
        (["9223372036854775807", "-9223372036854775807"], "BIGINT"),
        (["9223372036854775808"], "VARCHAR"),
        (["9007199254740993", "0.5"], "VARCHAR"),
        (["0012"], "VARCHAR"),
        (["00.5"], "VARCHAR"),
        (["1e999"], "VARCHAR"),
        (["n/a"], "VARCHAR"),
        (["true"], "VARCHAR"),
        (["2024-01-02"], "VARCHAR"),
        (["", "nan", ".5"], "DOUBLE"),
    ],
)
def test_what_comes_late_in_a_csv_decides_its_type_as_what_comes_first(
    con: Any, tmp_path: Path, values: list[str], kind: str
) -> None:
    (tmp_path / "late.csv").write_text(late(values))
    found, read = column(con, tmp_path / "late.csv")
    assert found == kind
    wanted = [row["v"] or None for row in csv.DictReader(io.StringIO(late(values)))]
    as_python = {"BIGINT": int, "DOUBLE": float, "VARCHAR": str}[kind]
    assert list(map(repr, read)) == [repr(w if w is None else as_python(w)) for w in wanted]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["true", "FALSE", ""], "BOOLEAN"),
        (["2024-01-02", "1999-12-31"], "DATE"),
        (["01/02/2024"], "VARCHAR"),
        (["2024-01-02 03:04:05.25"], "TIMESTAMP"),
        (["2024-01-02T03:04:05Z"], "VARCHAR"),
        (["2024-02-30"], "VARCHAR"),
        ([" 5", "6 "], "BIGINT"),
        (["nan", "inf"], "VARCHAR"),
        (["", ""], "VARCHAR"),
        (["0", "-0", "10"], "BIGINT"),
    ],
)
def test_a_type_is_one_that_all_values_have(con: Any, tmp_path: Path, values: list[str], kind: str) -> None:
    (tmp_path / "t.csv").write_text("k,v\n" + "".join(f"a,{v}\n" for v in values))
    assert column(con, tmp_path / "t.csv")[0] == kind


def test_random_numbers_of_a_csv_are_what_python_reads(con: Any, tmp_path: Path) -> None:
    chance = random.Random(0)
    whole = [
        str(chance.randrange(-(10 ** chance.randrange(1, 18)), 10 ** chance.randrange(1, 18)))
        for _ in range(500)
    ]
    real = [repr(chance.uniform(-1, 1) * 10 ** chance.randrange(-20, 20)) for _ in range(500)]
    for name, values, kind in (("i.csv", whole, int), ("f.csv", real, float)):
        (tmp_path / name).write_text("k,v\n" + "".join(f"a,{v}\n" for v in values))
        assert column(con, tmp_path / name)[1] == list(map(kind, values))


def test_a_column_that_a_step_takes_as_text_stays_as_it_is_written(con: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("k,v\n1,0.10\n2,1e3\n")
    assert column(con, tmp_path / "t.csv", texts=["v"]) == ("VARCHAR", ["0.10", "1e3"])
    assert column(con, tmp_path / "t.csv", columns=["k"]) == ("VARCHAR", ["0.10", "1e3"])
    (tmp_path / "t.jsonl").write_text('{"v": 12}\n{"v": 12345678901234567890}\n')
    assert column(con, tmp_path / "t.jsonl", texts=["v"]) == ("VARCHAR", ["12", "12345678901234567890"])


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([1, 0.35], "DOUBLE", [1.0, 0.35]),
        ([2**53 + 1, 0.5], "VARCHAR", [str(2**53 + 1), "0.5"]),
        ([2**63, 1], "VARCHAR", [str(2**63), "1"]),
        ([10**30], "VARCHAR", [str(10**30)]),
        (["a", 2024, True, None], "VARCHAR", ["a", "2024", "true", None]),
        (["0012", "12"], "VARCHAR", ["0012", "12"]),
        (["2024-01-02"], "VARCHAR", ["2024-01-02"]),
        ([["a", 1], []], "VARCHAR[]", [["a", "1"], []]),
        (
            [{"a": 1}, {"b": "x"}],
            "STRUCT(a BIGINT, b VARCHAR)",
            [{"a": 1, "b": None}, {"a": None, "b": "x"}],
        ),
    ],
)
def test_a_column_of_json_lines_holds_the_values_of_all_lines(
    con: Any, tmp_path: Path, values: list[Any], kind: str, read: list[Any]
) -> None:
    first = [values[0]] * LATE
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"k": "a", "v": v}) + "\n" for v in [*first, *values])
    )
    found, there = column(con, tmp_path / "t.jsonl")
    assert (found, there[LATE:]) == (kind, read)
    (tmp_path / "t.json").write_text(json.dumps([{"k": "a", "v": v} for v in values]))
    assert column(con, tmp_path / "t.json") == (kind, read)


def test_the_columns_of_json_lines_are_the_keys_of_all_lines(tmp_path: Path) -> None:
    (tmp_path / "late.jsonl").write_text('{"a": 1}\n' * LATE + '{"b": "x"}\n')
    assert json_types(tmp_path / "late.jsonl") == {"a": "BIGINT", "b": "VARCHAR"}
    (tmp_path / "many.jsonl").write_text("".join(json.dumps({f"k{i}": i}) + "\n" for i in range(500)))
    assert list(json_types(tmp_path / "many.jsonl")) == [f"k{i}" for i in range(500)]
    (tmp_path / "odd.jsonl").write_text('{"a": 1}\n5\n[{"z": 1}]\nno json\n{"b": 2}\n')
    assert json_types(tmp_path / "odd.jsonl") == {"a": "BIGINT", "b": "BIGINT"}


def test_keys_that_differ_in_case_alone_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"URL": "x"}\n{"url": "y"}\n')
    with pytest.raises(DataError, match="'URL', 'url'") as refused:
        json_types(tmp_path / "t.jsonl")
    assert refused.value.hint
    (tmp_path / "u.jsonl").write_text('{"url": "x", "url_1": "y"}\n')
    assert list(json_types(tmp_path / "u.jsonl")) == ["url", "url_1"]


def test_types_of_a_large_file_are_kept_for_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(readers.jsons, "WORTH_KEEPING", 0)
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n')
    assert json_types(path) == {"a": "BIGINT"}
    readers.jsons._types_of.cache_clear()
    monkeypatch.setattr(readers.jsons, "_inspect", lambda _: pytest.fail("looked at again"))
    assert json_types(path) == {"a": "BIGINT"}


def test_a_step_refuses_a_line_that_is_no_row_by_its_number(con: Any, tmp_path: Path) -> None:
    faults = {
        b'k,v\na,"x\ny"\nb,"unclosed\nc,1\n': "line 4: not a row of the table of 2 columns: b,.unclosed",
        b"k,v\na,1\nb\n": "line 3",
        b"k,v\na,1,2\n": "line 2",
        b"k,v\na,caf\xe9\n": "line 2: not UTF-8",
    }
    for number, (content, message) in enumerate(faults.items()):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message) as refused:
            column(con, path)
        assert str(path) in str(refused.value)
        assert refused.value.hint


@pytest.mark.parametrize(
    "content",
    [
        "k;v\na;0.5\nb;1\n", "k\tv\na\t0.5\nb\t1\n", "k|v\na|0.5\nb|1\n", "\n\nk,v\na,0.5\nb,1\n",
        "k,v\r\na,0.5\r\nb,1\r\n", "k,v\ra,0.5\rb,1\r", "k,v\r\na,0.5\nb,1\r\n", '"k","v"\n"a","0.5"\n"b","1"\n',
        " k, v\na, 0.5\nb, 1\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_step_reads_a_csv_however_it_is_divided_and_encoded(
    con: Any, tmp_path: Path, content: str, encoding: str
) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "t.csv").write_bytes((mark + content).encode(encoding))
    allow_only(con, files=[str(tmp_path / "t.csv")])
    readers.make_view(con, "u", str(tmp_path / "t.csv"), columns=None, texts=())
    assert con.execute("SELECT k, v FROM u").fetchall() == [("a", 0.5), ("b", 1.0)]


def test_a_step_reads_json_lines_in_utf_16(con: Any, tmp_path: Path) -> None:
    allow_only(con, files=[str(tmp_path / "t.jsonl")])
    (tmp_path / "t.jsonl").write_text('{"k": "ä", "v": 1}\n{"v": 0.5}\n', encoding="utf-16")
    readers.make_view(con, "u", str(tmp_path / "t.jsonl"), columns=None, texts=())
    assert con.execute("SELECT k, v FROM u").fetchall() == [("ä", 1.0), (None, 0.5)]


def test_quotation_marks_behind_backslashes_are_read(con: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('k,v\na,"a \\"big\\" dog"\nb,"two ""small"" ones"\nc,C:\\dir\n')
    assert column(con, tmp_path / "t.csv")[1] == ['a "big" dog', 'two "small" ones', "C:\\dir"]


def test_utf_16_without_its_mark_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("k,v\na,1\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="UTF-16") as refused:
        dialect(tmp_path / "t.csv")
    assert "iconv" in str(refused.value.hint)


def test_names_of_columns_are_those_that_duckdb_gives(tmp_path: Path) -> None:
    for header in ("a,b", "a,a,A", ",a,b", "a,b,", " a, b ", ",".join("x" * 12), "a,a_1,a", "," * 11):
        path = tmp_path / "t.csv"
        path.write_text(f"{header}\n" + ",".join("1" * (header.count(",") + 1)) + "\n")
        with duckdb.connect() as con:
            wanted = con.sql(
                f"FROM read_csv('{path}', delim = ',', header = true, all_varchar = true)"
            ).columns
        assert list(dialect(path).header) == wanted, header


def test_random_rows_are_those_that_python_writes(tmp_path: Path) -> None:
    chance = random.Random(1)
    texts = ["", "a", 'a "b" c', '"', "x,y", "two\nlines", "a;b", "tab\there", "ü日本", "\r\n", "'q'", "\\"]
    for number in range(50):
        rows = [[chance.choice(texts) for _ in range(3)] for _ in range(chance.randrange(1, 30))]
        out = io.StringIO()
        csv.writer(out, lineterminator=chance.choice(["\n", "\r\n"])).writerows([["k", "v", "w"], *rows])
        path = tmp_path / f"{number}.csv"
        path.write_bytes(out.getvalue().encode())
        with open(path, newline="") as lines:
            found = [next(csv.reader(io.StringIO(row))) for _, row, reason in rows_of(lines, dialect(path))]
        assert found == rows
        with duckdb.connect() as con:
            readers.make_view(con, "u", str(path), columns=(), texts=())
            read = con.execute("FROM u").fetchall()
        assert read == [tuple(cell or None for cell in row) for row in rows]
