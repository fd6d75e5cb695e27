"""Expressions in `${…}` of a recipe: a variable, or arithmetic over variables. No code runs to evaluate one."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from curate.errors import RecipeError, did_you_mean

_HOLE = re.compile(r"\$\{([^${}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONSTANTS = {"true": True, "false": False, "null": None}
MAX_LENGTH = 200  # characters; and so no deep nesting
MAX_NUMBER = 10**30  # what arithmetic may come to: no count is near it, and larger ones take ever longer
MAX_TEXT = 1_000_000  # characters of one text that is filled in


def _rounded(number: float, digits: int = 0) -> float:
    if not -30 <= digits <= 30:
        raise TypeError(f"round takes at most 30 digits, not {digits}")
    return round(number, digits) if digits else round(number)


_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "round": _rounded, "int": int}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.USub: operator.neg, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


def variables(value: Any) -> set[str]:
    """Return the names of the variables in all `${…}` of a document."""
    if isinstance(value, str):
        names = {name for hole in _HOLE.findall(value) for name in _NAME.findall(hole)}
        return names - set(_FUNCTIONS) - set(_CONSTANTS) - {"if", "else"}
    if isinstance(value, Mapping):
        return set().union(*(variables(v) for v in [*value.keys(), *value.values()]))
    return set().union(*(variables(v) for v in value)) if isinstance(value, list) else set()


def fill(value: Any, values: Mapping[str, Any], where: str) -> Any:
    """Return a document with its `${…}` filled in; a text that is a single hole becomes the value, of its own type.

    A hole holds a variable or arithmetic: `+ - * / //`, comparisons, `min max round int` and `A if C else B`.

    Raises:
        RecipeError: a variable has no value, or a hole holds something else.
    """
    if isinstance(value, Mapping):
        return {fill(k, values, where): fill(v, values, where) for k, v in value.items()}
    if isinstance(value, list):
        return [fill(v, values, where) for v in value]
    if not isinstance(value, str):
        return value
    whole = _HOLE.fullmatch(value)
    if whole:
        return _evaluate(whole[1], values, where)
    return _filled(value, values, where)


def _filled(text: str, values: Mapping[str, Any], where: str) -> str:
    """Return a text with its holes filled in.

    Raises:
        RecipeError: the result is longer than `MAX_TEXT`.
    """
    parts, length, last = list[str](), 0, 0
    for hole in _HOLE.finditer(text):
        parts += [text[last : hole.start()], str(_evaluate(hole[1], values, where))]
        length, last = length + len(parts[-2]) + len(parts[-1]), hole.end()
        if length > MAX_TEXT:
            raise RecipeError(
                f"{where}: {text[:40]!r}… would have more than {MAX_TEXT:,} characters once it is filled in",
                hint="put long texts and lists into files of their own",
            )
    return "".join([*parts, text[last:]])


def _evaluate(text: str, values: Mapping[str, Any], where: str) -> Any:
    text = text.strip()
    if _NAME.fullmatch(text):
        return _variable(text, values, where)
    try:
        if len(text) > MAX_LENGTH:
            raise SyntaxError
        return _bounded(_value(ast.parse(text, mode="eval").body, values, where))
    except (SyntaxError, TypeError, ZeroDivisionError, ValueError, OverflowError) as error:
        known = isinstance(error, ZeroDivisionError | TypeError)
        fault = str(error) if known else "not a variable or arithmetic"
        raise RecipeError(
            f"{where}: ${{{text}}}: {fault}",
            hint="such as ${images} or ${round(images * scale)}: + - * / //, < <= ==, min, max, round, int, if else",
        ) from None


def _value(node: ast.expr, values: Mapping[str, Any], where: str) -> Any:
    def value(inner: ast.expr) -> Any:
        return _value(inner, values, where)

    match node:
        case ast.Constant(value=constant) if constant is None or isinstance(constant, int | float | str):
            return constant
        case ast.Name(id=name):
            return _variable(name, values, where)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](value(operand))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            numbers = value(left), value(right)
            if not all(isinstance(n, int | float) for n in numbers):
                raise TypeError(f"arithmetic takes numbers, not {numbers[0]!r} and {numbers[1]!r}")
            return _bounded(_OPERATORS[type(sign)](*numbers))
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _OPERATORS:
            return _OPERATORS[type(sign)](value(left), value(right))
        case ast.IfExp(test=test, body=body, orelse=other):
            return value(body) if value(test) else value(other)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*map(value, arguments))
    raise SyntaxError


def _bounded(value: Any) -> Any:
    """Return the result of arithmetic.

    Raises:
        TypeError: it is beyond `MAX_NUMBER`, or not a number.
    """
    if isinstance(value, int | float) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise TypeError(f"the result is beyond {MAX_NUMBER:.0e}")
    return value


def _variable(name: str, values: Mapping[str, Any], where: str) -> Any:
    if name in values:
        return values[name]
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    near = did_you_mean(name, values)
    raise RecipeError(f"{where}: ${{{name}}} has no value", hint=near or f"add `--set {name}=VALUE`")
