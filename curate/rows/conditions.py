"""SQL conditions of a recipe: they see one row and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import duckdb

from curate.errors import RecipeError, did_you_mean
from curate.rows import syntax
from curate.rows.functions import ALLOWED, CARRIES_NAN, CHANGING, FAMILIES, LONGER, MULTIPLIES
from curate.rows.relation import FLOATS, number
from curate.rows.syntax import Node, arguments, constant, describe, nodes

# Kinds of nodes, by the parser's name, that a condition on one row never needs, and what the error says.
_REFUSED = {
    "SUBQUERY": "holds a query of its own; a condition sees one row and reads no tables or files",
    "WINDOW": "looks at other rows; take `sample` or `per_class` to choose by rank or count",
    "PARAMETER": "holds a parameter; write the value, or `${NAME}` and `--set NAME=VALUE`",
    "STAR": "holds a star; name columns",
    "POSITIONAL_REFERENCE": "counts columns; name them",
}
_TAKEN = frozenset({
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "LAMBDA_REF", "OPERATOR", "TYPE",
})  # fmt: skip
MAX_LENGTH = 20_000  # characters of a condition
MAX_WIDTH = 1_000  # characters that `lpad` and the like fill up to
MAX_MADE = 1_000_000  # characters that an expression may make of columns of 100 each
MAX_WRAPPED = 6  # each doubles what DuckDB is given
_FILLS = ("lpad", "rpad")
_FORMATS = ("printf", "format")


def checked(condition: str, columns: Mapping[str, str], *, constant: bool = False) -> str:
    """Check a condition or another expression over one row, and return it as SQL that is safe in a query.

    It is parsed, not searched for words. It has no subquery, only functions of `curate.rows.functions`, whose results
    depend on their arguments alone, and nothing that makes endless texts or lists. NaN inside it becomes NULL, because
    comparisons would take NaN for a large number.

    Args:
        constant: whether an expression without a column is allowed.

    Raises:
        RecipeError: with the fault and what to do.
    """
    if len(condition) > MAX_LENGTH:
        raise RecipeError(
            f"{describe(condition)} has {len(condition):,} characters, at most {MAX_LENGTH:,} are read",
            hint="put a long list into a table and `join` it",
        )
    try:
        return _checked(condition, columns, may_be_constant=constant)
    except (RecursionError, duckdb.SerializationException):
        raise RecipeError(f"{describe(condition)} is nested too deeply") from None


def _checked(condition: str, columns: Mapping[str, str], *, may_be_constant: bool) -> str:
    tree = syntax.parse(condition)
    named = False
    lambdas = _lambda_names(tree)
    for node in nodes(tree):
        kind = node["class"]
        if kind not in _TAKEN:
            fault = _REFUSED.get(kind, f"holds {kind.lower()!r}, which a condition on one row cannot need")
            raise RecipeError(f"{describe(condition)} {fault}")
        if kind == "FUNCTION":
            _check_function(node, condition)
        if kind == "COLUMN_REF":
            name = node["column_names"][0]
            if name.lower() not in {c.lower() for c in columns} | lambdas:
                hint = did_you_mean(name, columns) or f"the rows have {', '.join(columns)}"
                raise RecipeError(f"{describe(condition)}: no column {name!r}", hint=hint)
            named = named or name.lower() not in lambdas
    if not named and not may_be_constant:
        raise RecipeError(
            f"{describe(condition)} names no column, so it keeps all rows or none",
            hint=f"the rows have {', '.join(columns)}",
        )
    if _size(tree, lambdas) > MAX_MADE:
        raise RecipeError(
            f"{describe(condition)} may make a text or list of more than {MAX_MADE:,} characters of one row",
            hint="nest fewer functions that make texts longer",
        )
    return f"({_without_nan(tree, condition, columns) or condition}\n)"  # the line break ends a comment


def _check_function(node: Node, condition: str) -> None:
    """Refuse a function whose result may depend on more than its arguments, or may be of any length."""
    name = node["function_name"].lower()
    if name in CHANGING:
        raise RecipeError(
            f"{describe(condition)}: {name}() depends on when or where it runs",
            hint="chance comes from `sample`; it is the same on every machine",
        )
    if name not in ALLOWED:
        families = ", ".join(FAMILIES)
        near = did_you_mean(name, ALLOWED)
        raise RecipeError(
            f"{describe(condition)}: no function {name}() for one row",
            hint=f"{near + '; ' if near else ''}docs/reference.md lists them: {families}",
        )
    constants = [constant(argument) for argument in arguments(node)]
    if name in _FILLS and not _is_width(constants[1] if len(constants) > 1 else None):
        raise RecipeError(
            f"{describe(condition)}: {name}() must say its length as a number, at most {MAX_WIDTH:,}"
        )
    form = constants[0] if constants else None
    if name in _FORMATS and (form is None or re.search(r"\d{4}|\*|\{[^}]*\{", form)):
        raise RecipeError(
            f"{describe(condition)}: {name}() must begin with a format whose widths have at most 3 digits"
        )


def _is_width(text: str | None) -> bool:
    return text is not None and re.fullmatch(r"\d{1,4}", text) is not None and int(text) <= MAX_WIDTH


def _size(tree: Any, lambdas: set[str]) -> int:
    """Return a bound on the characters or elements that an expression makes if each column has 100."""
    if not isinstance(tree, dict):
        return 0
    if tree["class"] == "COLUMN_REF":
        return 1 if tree["column_names"][0].lower() in lambdas else 100
    if tree["class"] in ("CONSTANT", "TYPE"):
        return len(constant(tree) or "")
    sizes = [_size(node, lambdas) for node in arguments(tree)]
    name = str(tree.get("function_name", "")).lower()
    if name in _FILLS:
        return sum(sizes) + MAX_WIDTH
    if name in _FORMATS:
        return sum(sizes) + MAX_WIDTH * len(sizes)
    if name in MULTIPLIES:
        longest = max(sizes, default=0)
        sizes.remove(longest)
        return max(longest, 1) * max(sum(sizes), 1)
    return sum(sizes) * LONGER.get(name, 1)


def _lambda_names(tree: Any) -> set[str]:
    heads = [node.get("lhs", {}) for node in nodes(tree) if node["class"] == "LAMBDA"]
    return {n["column_names"][0].lower() for head in heads for n in nodes(head) if n["class"] == "COLUMN_REF"}


def _without_nan(tree: Any, condition: str, columns: Mapping[str, str]) -> str | None:
    """Return the expression with NULL in place of NaN wherever it may occur; None if it cannot.

    DuckDB sorts NaN above all numbers: `0 / 0 > 3` would be true, and so would `'nan'::DOUBLE > 3`.
    """
    candidates = _candidates(tree)
    kinds = syntax.types(candidates, columns) if candidates else None
    floats = {id(n) for n, kind in zip(candidates, kinds or [], strict=False) if kind in FLOATS}
    if not floats:
        return None
    frame = syntax.parse(number("x"))
    changed, depth = _wrapped(tree, floats, frame, carried=False)
    if depth > MAX_WRAPPED:
        raise RecipeError(f"{describe(condition)} nests too many numbers in one another")
    return syntax.written([changed])[0]


def _candidates(tree: Any) -> list[Node]:
    """Return the nodes that may have a floating-point type; nodes inside a lambda have no type of their own."""
    candidates, waiting = list[Node](), [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or node["class"] == "LAMBDA":
            continue
        nested = node["class"] == "COLUMN_REF" and len(node["column_names"]) > 1
        if nested or node["class"] in ("FUNCTION", "CAST", "OPERATOR", "CASE"):
            candidates.append(node)
        waiting += arguments(node)
    return candidates


def _wrapped(value: Any, floats: set[int], frame: Node, *, carried: bool) -> tuple[Any, int]:
    """Return a tree with its floating-point nodes framed, and how deep frames nest.

    Args:
        floats: the ids of the nodes with a floating-point type.
        frame: the tree that such a node is put into, in place of the frame's column.
        carried: whether the node around this one is framed and is NaN if this one is.
    """
    if isinstance(value, list):
        pairs = [_wrapped(v, floats, frame, carried=carried) for v in value]
        return [v for v, _ in pairs], max((depth for _, depth in pairs), default=0)
    if not isinstance(value, dict) or value.get("class") == "LAMBDA":
        return value, 0
    is_float = id(value) in floats
    if "class" in value:
        carries = value["class"] == "CAST" or value.get("function_name") in CARRIES_NAN
        inside = is_float and carries
    else:
        inside = carried
    parts = {k: _wrapped(v, floats, frame, carried=inside) for k, v in value.items()}
    node = {k: v for k, (v, _) in parts.items()}
    depth = max((depth for _, depth in parts.values()), default=0)
    if is_float and not carried:  # the frame takes over the name that the node has in a struct
        return _put(frame, node | {"alias": ""}) | {"alias": node["alias"]}, depth + 1
    return node, depth


def _put(frame: Any, node: Node) -> Any:
    """Return a frame with a node in place of its column."""
    if isinstance(frame, list):
        return [_put(v, node) for v in frame]
    if not isinstance(frame, dict):
        return frame
    return node if frame.get("class") == "COLUMN_REF" else {k: _put(v, node) for k, v in frame.items()}
