"""What SQL in a recipe may call, and what is no number in the middle of it."""

from __future__ import annotations

import time
from typing import Any

import duckdb
import pytest

from curate.errors import RecipeError
from curate.rows.conditions import checked
from curate.rows.functions import ALLOWED, CHANGING

COLUMNS = {
    "key": "VARCHAR", "width": "INTEGER", "height": "INTEGER", "caption": "VARCHAR", "score": "DOUBLE",
    "near": "FLOAT", "made": "TIMESTAMP", "about": "JSON", "scores": "DOUBLE[]",
    "told": "STRUCT(score DOUBLE, who VARCHAR)", "Odd \"Name": "DOUBLE", "price": "DECIMAL(10,2)",
}  # fmt: skip
# What asks for each kind of argument; a macro would be looked up by its name before its arguments are.
FUNCTIONS = "SELECT function_name, function_type, stability FROM duckdb_functions() WHERE function_type IN"


def functions(*kinds: str) -> dict[str, set[tuple[str, str | None]]]:
    found: dict[str, set[tuple[str, str | None]]] = {}
    with duckdb.connect() as con:
        for name, kind, stability in con.execute(f"{FUNCTIONS} {(*kinds, '')}").fetchall():
            found.setdefault(name.lower(), set()).add((kind, stability))
    return found


def test_every_function_of_the_library_that_is_not_allowed_is_refused() -> None:
    every = functions("scalar", "macro", "aggregate", "table", "table_macro", "window", "pragma")
    named = [n for n in every if n.replace("_", "").isalnum() and n not in ALLOWED]
    assert len(named) > 500
    taken = []
    for name in named:
        try:
            checked(f'"{name}"(key) IS NULL', COLUMNS)
        except RecipeError:
            continue
        taken.append(name)
    assert taken == []


def test_every_allowed_function_is_there_and_answers_from_its_arguments_alone() -> None:
    there = functions("scalar", "macro")
    operators = {name for name in ALLOWED if not name.replace("_", "").isalnum()}
    # Some are the parser's own, or not in every version of DuckDB.
    assert len(ALLOWED - operators - set(there)) < 20
    volatile = {n for n in ALLOWED & set(there) if any(s == "VOLATILE" for _, s in there[n])}
    assert volatile == set()
    # These vary with the session for times with a zone only, and the session's zone is fixed.
    varying = {n for n in ALLOWED & set(there) if any(s == "CONSISTENT_WITHIN_QUERY" for _, s in there[n])}
    assert all(n in ("+", "-", "timezone", "era", "julian") or _of_dates(n) for n in varying)
    assert not ALLOWED & CHANGING


def _of_dates(name: str) -> bool:
    from curate.rows.functions import FAMILIES

    return name in FAMILIES["dates"].split()


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("pg_sleep(3) IS NULL AND width > 1", "depends on when or where"),
        ("made > ago(INTERVAL 1 DAY)", "depends on when or where"),
        ("made > pg_postmaster_start_time()", "depends on when or where"),
        ("key.getenv() = 'a'", "depends on when or where"),
        ("lowr(key) = 'a'", r"no function lowr\(\)(?s:.*)did you mean 'lower'"),
        ("count(key) > 3", r"no function count\(\)"),
        ("hash(key) > 3", r"no function hash\(\)"),
        ("#1 = 'a'", "counts columns"),
        ("session_user = key", "no column 'session_user'"),
        ("repeat(caption, 1000000000) = key", r"no function repeat\(\)"),
        ("len(range(1000000000000)) = width", r"no function range\(\)"),
        ("lpad(caption, 1000000000, 'x') = key", r"lpad\(\) must say its length .* at most 1,000"),
        ("rpad(caption, width, 'x') = key", r"rpad\(\) must say its length .* at most 1,000"),
        ("printf('%1000000000d', width) = key", "at most 3 digits"),
        ("printf(caption, width) = key", "at most 3 digits"),
        ("format('{:{}}', width, 1000000000) = key", "at most 3 digits"),
        ("replace(replace(replace(caption, 'a', '{x}'), 'a', '{x}'), 'a', '{x}') = key", "of more than 1,000,000"),
        (f"{'bin(' * 12}caption{')' * 12} = key", "of more than 1,000,000"),
        (f"{'list_transform(scores, lambda x: ' * 5}scores{')' * 5} = key", "of more than 1,000,000"),
        (f"width{' + 1' * 4900} > 3", "Max expression depth"),
        (f"key IN ({'0,' * 20_000}0)", "at most 20,000 are read"),
    ],
)  # fmt: skip
def test_what_no_condition_needs_is_refused_at_once(condition: str, says: str) -> None:
    started = time.monotonic()
    with pytest.raises(RecipeError) as raised:
        checked(condition.replace("{x}", "a" * 500), COLUMNS)
    assert raised.match(says)
    assert time.monotonic() - started < 60  # in whole, it would take hours


EVERYDAY = [
    "width >= 64 AND split_part(caption, ' ', 1) <> 'x' -- large",
    "lpad(width::VARCHAR, 12, '0') || '.jpg' = key",
    "printf('%012d.jpg', width) = key OR format('{:05d}', width) = key",
    "regexp_matches(caption, '(a|b)') AND NOT caption ILIKE '%z%'",
    "regexp_replace(replace(trim(caption), '&', ' and '), '\\s+', ' ', 'g') = key",
    "year(made) >= 2000 AND made - INTERVAL 3 DAY < TIMESTAMP '2020-01-01'",
    "about->>'$.a' = 'b' AND json_extract_string(about, 'a') = 'b' OR (about->'$.x')::INTEGER = 3",
    "width / height BETWEEN 0.5 AND 2",
    "greatest(width, height) / least(width, height) <= 3",
    "len([x + 1 for x in scores if x > 0.3]) > 1 AND list_max(scores) > 0.5",
    "CASE WHEN width > 3 THEN score * 2 ELSE near END > 1",
    "coalesce(score, near, 0) > 0.2 AND try_cast(caption AS DOUBLE) IS NULL",
    "told.score > 0.3 AND told.who = 'a' AND {'a': width / height}.a > 1",
    '"Odd ""Name" * 2 > 1 AND price / 2 > 1',
    "date_part('year', made) = 2000 AND strftime(made, '%Y') = '2000'",
    "key IN ('a', 'b') AND width % 2 = 0 AND md5_number_lower(key) % 10 < 3",
]
ROW = (
    "('a', 64, 48, '1.5', 0.5::DOUBLE, 0.25::FLOAT, TIMESTAMP '2000-02-03', '{\"a\": \"b\", \"x\": 3}'::JSON, "
    "[0.1, 0.9]::DOUBLE[], {'score': 0.5::DOUBLE, 'who': 'a'}, 1.5::DOUBLE, 3.5::DECIMAL(10,2))"
)


def answers(condition: str, row: str = ROW) -> Any:
    names = ", ".join(f'"{c}"'.replace('d "N', 'd ""N') for c in COLUMNS)
    with duckdb.connect() as con:
        return con.execute(f"SELECT {condition} FROM (VALUES {row}) t({names})").fetchall()[0][0]


@pytest.mark.parametrize("condition", EVERYDAY)
def test_everyday_conditions_answer_as_before(condition: str) -> None:
    columns = {c.replace('d "N', 'd "N'): kind for c, kind in COLUMNS.items()}
    assert answers(checked(condition, columns, constant=True)) == answers(f"({condition}\n)")


NAN_ROW = ROW.replace("'1.5'", "'nan'").replace("0.5::DOUBLE, 'who'", "'nan'::DOUBLE, 'who'")
NAN_ROW = (
    NAN_ROW.replace("'0.1", "'nan'").replace('"x"', '"s": "nan", "x"').replace("[0.1,", "['nan'::DOUBLE,")
)


@pytest.mark.parametrize(
    "number",
    [
        "(score - 0.5) / (width - 64)", "0 / (width - 64)", "pow(-8, 1 / 3.0)", "fmod(width, 0)",
        "caption::DOUBLE", "try_cast(caption AS FLOAT)", "(about->>'$.s')::DOUBLE", "scores[1]", "list_max(scores)",
        "('inf'::DOUBLE - 'inf'::DOUBLE) + width", "CASE WHEN width = 64 THEN told.score ELSE 1 END",
    ],
)  # fmt: skip
def test_what_is_no_number_is_null_in_an_expression(number: str) -> None:
    assert str(answers(number, NAN_ROW)) == "nan"
    assert answers(checked(number, COLUMNS, constant=True), NAN_ROW) is None
    for question in (f"{number} > 3", f"NOT {number} <= 3", f"3 < {number}", f"{number} NOT BETWEEN 0 AND 1"):
        assert not answers(checked(question, COLUMNS, constant=True), NAN_ROW)


@pytest.mark.parametrize(
    "expression",
    [
        "told.score", "abs(told.score) * 2 > 1", "round(told.score, 2)::VARCHAR", "if(told.score > 3, 5, told.score)",
        "coalesce(told.score, 1)", "greatest(told.score, 1)", "{'a': told.score}.a > 3", "isnan(told.score * 2)",
        "told.score IS NULL", "told.score IN (1, 2)", "NOT told.score < 3 OR width = 64", "concat(told.score * 2, 'a')",
    ],
)  # fmt: skip
def test_what_is_no_number_counts_as_null(expression: str) -> None:
    null_row = NAN_ROW.replace("'nan'::DOUBLE, 'who'", "NULL::DOUBLE, 'who'")
    assert answers(checked(expression, COLUMNS), NAN_ROW) == answers(f"({expression})", null_row)


def test_infinity_is_a_number() -> None:
    assert answers(checked("width / 0 > 3", COLUMNS)) is True
    assert answers(checked("-width / 0 < score", COLUMNS)) is True
