"""SQL conditions from a recipe: one row in, true or false out, and nothing else within reach."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import duckdb

from curate.errors import RecipeError, did_you_mean
from curate.manifests import text

# What a condition on one row cannot need, by the parser's name, and what to say of it.
_REFUSED = {
    "SUBQUERY": "holds a query of its own; a condition sees one row and reads no tables or files",
    "WINDOW": "looks at other rows; take `sample` or `per_class` to choose by rank or count",
    "PARAMETER": "holds a parameter; write the value, or `${NAME}` and `--set NAME=VALUE`",
    "STAR": "holds a star; name columns",
}


def checked(condition: str, columns: Mapping[str, str], *, constant: bool = False) -> str:
    """Return a condition, or another expression over one row, that is safe to put into a query.

    It is parsed, not searched for words: no subquery, no table function, nothing that changes from one call
    to the next (`random()`, `now()`) or looks at the machine, and unless it may be constant it names a column.

    Raises:
        RecipeError: with the fault and what to do.
    """
    tree = _parse(condition)
    named = False
    lambdas = _lambda_names(tree)
    for node in _nodes(tree):
        kind = node["class"]
        if kind in _REFUSED:
            raise RecipeError(f"condition {condition!r} {_REFUSED[kind]}")
        if kind == "FUNCTION":
            _check_function(node["function_name"], condition)
        if kind == "COLUMN_REF":
            name = node["column_names"][0]
            if name.lower() not in {c.lower() for c in columns} | lambdas:
                hint = did_you_mean(name, columns) or f"the rows have {', '.join(columns)}"
                raise RecipeError(f"condition {condition!r}: no column {name!r}", hint=hint)
            named = named or name.lower() not in lambdas
    if not named and not constant:
        raise RecipeError(
            f"condition {condition!r} names no column, so it keeps all rows or none",
            hint=f"the rows have {', '.join(columns)}",
        )
    return f"({condition}\n)"  # the line break ends a comment


@lru_cache(maxsize=64)
def _parse(condition: str) -> Any:
    queries, plain = _queries(condition), _queries("true")
    where = queries[0].pop("where_clause", None)
    del plain[0]["where_clause"]
    if queries != plain:  # it closed our bracket and went on: LIMIT, UNION, USING SAMPLE, …
        raise RecipeError(f"condition {condition!r} is more than one condition")
    return where


def _queries(condition: str) -> list[dict[str, Any]]:
    answer = _serialized(f"SELECT 1 FROM rows WHERE ({condition}\n)")
    if answer["error"]:
        fault = answer["error_message"]
        alone = _serialized(f"SELECT 1 FROM rows WHERE {condition}")
        if fault.endswith(')"') and not alone.get("error_message", "").endswith(')"'):  # the bracket is ours
            fault = "it ends too early"
        raise RecipeError(f"condition {condition!r} is not SQL: {fault}")
    return [s["node"] for s in answer["statements"]]


def _serialized(statement: str) -> Any:
    with duckdb.connect() as con:
        return json.loads(con.execute(f"SELECT json_serialize_sql({text(statement)})").fetchone()[0])


@lru_cache(maxsize=1)
def _unstable() -> frozenset[str]:
    with duckdb.connect() as con:
        found = con.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE stability IS DISTINCT FROM 'CONSISTENT' AND function_type = 'scalar' "
            # From DuckDB 2.0.1 on, + and - are so for times with a zone, and mostly used for numbers.
            "AND regexp_matches(function_name, '^[a-z_]')"
        ).fetchall()
    return frozenset(name for (name,) in found) | {"getenv", "version"}


def _check_function(name: str, condition: str) -> None:
    if name.lower() in _unstable():
        raise RecipeError(
            f"condition {condition!r}: {name}() depends on when or where it runs",
            hint="chance comes from `sample`; it is the same on every machine",
        )


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _lambda_names(tree: Any) -> set[str]:
    heads = [node.get("lhs", {}) for node in _nodes(tree) if node["class"] == "LAMBDA"]
    return {
        n["column_names"][0].lower() for head in heads for n in _nodes(head) if n["class"] == "COLUMN_REF"
    }
