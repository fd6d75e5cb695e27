"""The recipe language told from the functions themselves: names, options, docs."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal

from pydantic import BaseModel

from curate import ops, sources
from curate.cli.examples import shown
from curate.errors import reject_unknown
from curate.recipes.fields import Expect, Resize
from curate.recipes.recipe import Recipe
from curate.recipes.signatures import Signature, documented
from curate.rows.conditions import MAX_WIDTH
from curate.rows.functions import FAMILIES


def overview() -> list[tuple[str, str, str]]:
    """Return kind, name and first sentence of every operation and source."""
    return [(kind, name, doc.split("\n")[0]) for kind, name, doc, _ in _all()]


def explain(name: str) -> str:
    """Return everything about one operation or source, as text.

    Raises:
        RecipeError: there is none of this name.
    """
    entries = [e for e in _all() if e[1] == name]
    reject_unknown(name, sorted({e[1] for e in _all()}), f"no operation or source {name!r}")
    sections = []
    for kind, _, doc, signature in entries:
        sections += [f"{kind} {name}", doc, usage(kind, name, signature)]
        if kind == "operation" and (tables := shown(ops.find(name))):
            sections += [tables]
    return "\n\n".join(sections)


def usage(kind: str, name: str, signature: Signature) -> str:
    """Return the YAML form with each option's type and default."""
    lines = []
    for option, parameter in signature.parameters.items():
        empty = parameter.default is parameter.empty
        default = (
            "the recipe's" if option == "seed" and empty else "needed" if empty else repr(parameter.default)
        )
        lines.append(f"    {option}: {type_name(signature.types[option])}  # {default}")
    if kind == "source":
        return "\n".join([f"source:\n  {name}:", *lines])
    return "\n".join([f"- {name}:", *lines])


def document(name: str | None = None) -> list[dict[str, Any]]:
    """Return the whole language, or one entry, for a machine."""
    if name:
        explain(name)
    return [
        {
            "kind": kind,
            "name": entry,
            "doc": doc,
            "options": {o: type_name(signature.types[o]) for o in signature.names},
        }
        for kind, entry, doc, signature in _all()
        if name in (None, entry)
    ]


def markdown() -> str:
    """Return the recipe reference: a page of the docs, generated so that it cannot drift."""
    lines = [
        "# Recipe reference",
        "",
        "Generated from the operations by `make reference`; see `curate ops`.",
        "",
        *_recipe(),
    ]
    for kind, title in (("source", "Sources"), ("operation", "Operations")):
        lines += [f"## {title}", "", "| name | does |", "|---|---|"]
        rows = [(name, doc.split("\n")[0]) for found, name, doc, _ in _all() if found == kind]
        lines += [f"| [{name}](#{name}) | {first.replace('|', ' ')} |" for name, first in rows] + [""]
        for found, name, doc, signature in _all():
            if found == kind:
                lines += [
                    f"### {name}",
                    "",
                    "```yaml",
                    usage(kind, name, signature),
                    "```",
                    "",
                    _as_markdown(doc),
                    "",
                ]
                if kind == "operation" and (tables := shown(ops.find(name))):
                    lines += ["```text", tables, "```", ""]
    return "\n".join([*lines, *_functions()]).rstrip() + "\n"


def _functions() -> list[str]:
    """Return what SQL over a row may call, as a section of the page."""
    lines = [
        "## Functions",
        "",
        "`where`, `compute` and the `equal_to` of `join` take SQL over one row: columns, literals, comparisons, "
        "`CASE`, `CAST` and `TRY_CAST`, `TRY`, `coalesce`, lambdas, and these functions of DuckDB. All answer from "
        f"their arguments alone. `lpad` and `rpad` take a number of at most {MAX_WIDTH:,} for their length, `printf` "
        "and `format` a literal for their format. What is not a number (`0 / 0`) is NULL; infinity is a number.",
        "",
    ]
    for family, names in FAMILIES.items():
        lines += [f"- {family}: {', '.join(f'`{name}`' for name in names.split())}"]
    return [*lines, ""]


def _recipe() -> list[str]:
    """Return what a recipe itself has, as a section of the page."""
    lines = ["## A recipe", "", "| field | type | default | meaning |", "|---|---|---|---|"]
    meanings = documented(inspect.getdoc(Recipe) or "")
    kinds = typing.get_type_hints(Recipe, include_extras=True)
    for name, field in Recipe.model_fields.items():
        if not field.exclude and name != "family":
            default = (
                "needed"
                if field.is_required()
                else f"`{_plain(field.get_default(call_default_factory=True))}`"
            )
            lines.append(f"| `{name}` | {_in_cell(kinds[name])} | {default} | {meanings[name]} |")
    lines += [
        "",
        "Besides these, `set:` gives variables for `${…}` and `matrix:` builds several datasets from one recipe.",
        "",
    ]
    for name, kind in (("expect", Expect), ("resize", Resize)):
        kinds = typing.get_type_hints(kind, include_extras=True)
        fields = ", ".join(f"`{one}` ({_in_cell(kinds[one])})" for one in kind.model_fields)
        told = " ".join(
            f"`{one}`: {meaning}" for one, meaning in documented(inspect.getdoc(kind) or "").items()
        )
        lines += [f"`{name}` has {fields}. {told}".rstrip(), ""]
    return lines


def _in_cell(kind: Any) -> str:
    return type_name(kind).replace(" | ", " or ")  # a bar would end the cell


def _plain(default: Any) -> Any:
    return {} if isinstance(default, BaseModel) else default


def type_name(kind: Any) -> str:
    """Return a type as a reader of YAML would say it."""
    if typing.get_origin(kind) is typing.Annotated:
        base, *marks = typing.get_args(kind)
        bounds = [b for mark in marks for m in getattr(mark, "metadata", []) if (b := _bound(m))]
        return f"{type_name(base)}, {' and '.join(bounds)}" if bounds else type_name(base)
    if kind is Any:
        return "anything"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping"
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    arguments = [a for a in typing.get_args(kind) if a is not NoneType]
    if typing.get_origin(kind) in (list, dict):
        return f"{typing.get_origin(kind).__name__} of {' to '.join(map(type_name, arguments))}"
    if arguments:
        return " | ".join(map(type_name, arguments))
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true | false"}.get(
        getattr(kind, "__name__", ""), str(kind)
    )


def _bound(mark: Any) -> str | None:
    """Return a pydantic bound in words; the largest seed is nobody's concern."""
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    return next(
        (f"{word} {getattr(mark, name):g}" for name, word in words.items() if hasattr(mark, name)), None
    )


def _as_markdown(doc: str) -> str:
    """Turn a docstring's `Args:` into a list, and its `Example:` into YAML."""
    head, example, rest = doc.partition("Example:\n")
    if example:
        steps, _, rest = rest.partition("\n\n")
        doc = head + (rest and f"{rest}\n\n") + "Example:\n\n```yaml\n" + inspect.cleandoc(steps) + "\n```"
    before, args, after = doc.partition("Args:\n")
    _, blank, after = after.partition("\n\n")
    lines = [f"- `{name}`: {meaning}" for name, meaning in documented(doc).items()]
    return before + "\n".join(lines) + blank + after if args else doc


def _all() -> Iterator[tuple[str, str, str, Signature]]:
    for name in sources.names():
        yield "source", name, sources.doc(name), Signature(sources.opener(name))
    for name in ops.names():
        operation = ops.find(name)
        yield "operation", name, operation.doc, operation.signature


if __name__ == "__main__":
    print(markdown(), end="")
