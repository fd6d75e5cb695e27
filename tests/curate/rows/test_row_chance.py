"""Chance is one number, in DuckDB and in Python, for every key there may be."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pytest
from campaigns import examples
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from curate.datasets.dataset import Dataset
from curate.rows.chance import SPAN, chance, chance_sql

SEEDS = st.integers(min_value=0, max_value=2**63 - 1)
# DuckDB holds no NUL-free promise, but its parser takes no NUL in a statement; surrogates are no text.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))


@pytest.fixture(scope="module")
def con() -> Iterator[Any]:
    with duckdb.connect() as con:
        yield con


@given(key=TEXTS, seed=SEEDS, salt=TEXTS)
@example(key="n01440764/n01440764_10026", seed=0, salt="sample")
@example(key='it\'s a "key" -- /* ; ü 漢字 🦆', seed=2**63 - 1, salt="o'salt:0:")
@example(key="", seed=0, salt="")
@examples(50, allowed=[HealthCheck.function_scoped_fixture])
def test_duckdb_and_python_agree_bit_for_bit(con: Any, key: str, seed: int, salt: str) -> None:
    [(number, kind)] = con.execute(
        f"SELECT c, typeof(c) FROM (SELECT {chance_sql(seed, salt)} AS c FROM (SELECT ? AS key))", [key]
    ).fetchall()
    assert kind == "UBIGINT"
    assert number == chance(key, seed, salt)
    assert 0 <= number < SPAN


def test_chance_is_the_md5_that_is_documented() -> None:
    # printf 'sample:0:n01440764/1' | md5sum → 8 bytes, little-endian
    assert chance("n01440764/1", 0, "sample") == int.from_bytes(bytes.fromhex("281e8afe3909be69"), "little")


def test_decisions_are_independent(con: Any) -> None:
    both, first, second = con.execute(
        f"SELECT count(*) FILTER (a AND b), count(*) FILTER (a), count(*) FILTER (b) FROM (SELECT "
        f"{chance_sql(0, 'noise/hit')} < {SPAN // 2} AS a, {chance_sql(0, 'noise/target')} < {SPAN // 2} AS b "
        f"FROM (SELECT 'k' || i AS key FROM range(40000) r(i)))"
    ).fetchone()
    # 40,000 draws: 20,000 each and 10,000 both, five standard deviations of 100 and 87
    assert abs(first - 20_000) < 500
    assert abs(second - 20_000) < 500
    assert abs(both - 10_000) < 433


def test_rows_stand_in_the_order_of_the_whole_md5(built: Callable[..., Dataset]) -> None:
    keys = built([{"per_class": 8}]).table(["key"])["key"].to_pylist()
    assert len(keys) > 24

    def place(key: str) -> int:
        return int.from_bytes(hashlib.md5(f"order:0:{key}".encode()).digest(), "little")

    assert keys == sorted(keys, key=place)
