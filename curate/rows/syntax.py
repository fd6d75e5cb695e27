"""SQL expressions as trees, parsed and written by DuckDB; SQL is never searched for words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import duckdb

from curate.errors import RecipeError
from curate.rows.relation import columns_of
from curate.rows.sql import quoted, text

Node = dict[str, Any]  # has a "class", and deeper inside its arguments


def describe(condition: str) -> str:
    """Return a condition as messages show it: its text, cut where it is long."""
    return f"condition {condition!r}" if len(condition) <= 200 else f"condition {condition[:60]!r}…"


@lru_cache(maxsize=64)
def parse(condition: str) -> Any:
    """Return the tree of an expression over one row.

    Raises:
        RecipeError: the text is no SQL, or more than an expression.
    """
    queries, plain = _queries(condition), _queries("true")
    where = queries[0].pop("where_clause", None)
    del plain[0]["where_clause"]
    if queries != plain:  # the text closes our bracket and goes on: LIMIT, UNION, USING SAMPLE, …
        raise RecipeError(f"{describe(condition)} is more than one condition")
    return where


def written(trees: list[Node]) -> list[str]:
    """Return the SQL of trees."""
    answer = _serialized("SELECT 1")
    query = answer["statements"][0]["node"]
    texts = []
    with duckdb.connect() as con:
        for tree in trees:
            query["select_list"] = [tree | {"alias": ""}]
            # Through text(): DuckDB folds the argument, and so takes no parameter.
            [(sql,)] = con.execute(
                f"SELECT json_deserialize_sql({text(json.dumps(answer))}::JSON)"
            ).fetchall()
            texts.append(sql.removeprefix("SELECT ").removesuffix(";"))
    return texts


def types(trees: list[Node], columns: Mapping[str, str]) -> list[str] | None:
    """Return the DuckDB types of trees over rows with these columns; None if a tree cannot be bound."""
    chosen = ", ".join(f"{sql} AS t{i}" for i, sql in enumerate(written(trees)))
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE rows ({', '.join(f'{quoted(c)} {kind}' for c, kind in columns.items())})")
        try:
            return list(columns_of(con, f"(SELECT {chosen} FROM rows)").values())
        except duckdb.Error:
            return None


def nodes(tree: Any) -> Iterator[Node]:
    """Yield the nodes of a tree, outer nodes first."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class" in value:
                yield value
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)


def arguments(node: Node) -> list[Node]:
    """Return the nodes right inside another, in their order."""
    found: list[Node] = []
    waiting = list(reversed(node.values()))
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and "class" in value:
            found.append(value)
        elif isinstance(value, dict):
            waiting += reversed(value.values())
        elif isinstance(value, list):
            waiting += reversed(value)
    return found


def constant(node: Node) -> str | None:
    """Return what a literal says, as text; None for anything else."""
    if node["class"] != "CONSTANT":
        return None
    literal = node.get("literal") or node["value"]
    return str(literal.get("text", literal.get("value")))


def _queries(condition: str) -> list[Node]:
    answer = _serialized(f"SELECT 1 FROM rows WHERE ({condition}\n)")
    if answer["error"]:
        fault = answer["error_message"]
        alone = _serialized(f"SELECT 1 FROM rows WHERE {condition}")
        if fault.endswith(')"') and not alone.get("error_message", "").endswith(')"'):  # the bracket is ours
            fault = "it ends too early"
        raise RecipeError(f"{describe(condition)} is not SQL: {fault}")
    return [s["node"] for s in answer["statements"]]


def _serialized(statement: str) -> Any:
    with duckdb.connect() as con:
        [(found,)] = con.execute(f"SELECT json_serialize_sql({text(statement)})").fetchall()
    return json.loads(found)
