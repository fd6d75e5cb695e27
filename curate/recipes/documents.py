"""YAML documents that people write, read without running code and within limits of size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from curate.errors import RecipeError
from curate.recipes.signatures import WrittenInt

MAX_BYTES = 4 << 20  # of a recipe's file
MAX_NODES = 200_000  # values in one recipe; a map of all 21k classes of ImageNet fits ten times
MAX_CHARACTERS = 10_000_000  # of its texts, once aliases and variables are written out
MAX_DIGITS = 100  # of a whole number; 1,000,000 take seconds to read


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses duplicate keys, as YAML itself does; `on`, `no` and `yes` are words."""

    # As in YAML 1.2: `language: no` is Norwegian, not false.
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in patterns if tag != "tag:yaml.org,2002:bool"]
        for first, patterns in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            name = str(key)  # 123 and "123" are one name
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice", key_node.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Return a whole number; if Python would write it otherwise, a `WrittenInt`, which keeps the text.

        Raises:
            ConstructorError: it has more than `MAX_DIGITS` digits.
        """
        if len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value):,} digits; {MAX_DIGITS} are read", node.start_mark
            )
        value = self.construct_yaml_int(node)
        return value if str(value) == node.value else WrittenInt(value, node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole_number)
yaml.SafeDumper.add_representer(WrittenInt, lambda dumper, number: dumper.represent_int(int(number)))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(?:true|false)$"), ["t", "f"])


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping safely.

    Raises:
        RecipeError: the file cannot be read, is no YAML, or holds something else.
    """
    content = ""
    try:
        content = _read(path)
        document = yaml.load(content, _Loader)
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror})", hint="give the path of a recipe"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        hint = _unquoted(content.splitlines()[mark.line : mark.line + 1]) if mark else None
        raise RecipeError(f"{path}{line}: not plain YAML: {problem}", hint=hint) from None
    count_values(document, f"{path}", "its aliases are written out")
    if not isinstance(document, dict):
        raise RecipeError(
            f"{path}: a recipe is a mapping, got {type(document).__name__}", hint="begin with `name:`"
        )
    return document


def _unquoted(lines: list[str]) -> str | None:
    """Return a hint if a line has a variable without quotes inside braces, which YAML takes for a mapping."""
    bare = re.sub(r"""\"[^"]*\"|'[^']*'""", "", "".join(lines)[:1_000])
    variable = re.search(r"[^\s,{}\[\]]*\$\{[^{}]*\}[^\s,{}\[\]]*", bare)
    return f'inside braces a variable needs quotes: write "{variable[0]}"' if variable else None


def _read(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ValueError: it has more than `MAX_BYTES`.
    """
    with path.open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES:,} bytes")
    return content.decode("utf-8")


def count_values(document: Any, where: str, when: str) -> int:
    """Count the values of a document with its aliases followed, which can nest without end.

    Args:
        where: what errors begin with.
        when: what the document is like at this point, for the message.

    Raises:
        RecipeError: it has more than `MAX_NODES` values or `MAX_CHARACTERS`.
    """
    count, characters, stack = 0, 0, [document]
    while stack:
        value = stack.pop()
        count += 1
        characters += len(value) if isinstance(value, str) else 0
        if count > MAX_NODES or characters > MAX_CHARACTERS:
            what = f"{MAX_NODES:,} values" if count > MAX_NODES else f"{MAX_CHARACTERS:,} characters"
            raise RecipeError(f"{where}: more than {what} once {when}")
        if isinstance(value, Mapping):
            stack += [*value, *value.values()]
        elif isinstance(value, list):
            stack += value
    return count


def setting(text: Any) -> Any:
    """Return the value of a setting: a text is read as YAML, any other value is returned as it is."""
    if not isinstance(text, str):
        return text
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):  # such as a path, or 2024-13-45
        return text


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a mapping of names; `None` is an empty one.

    Raises:
        RecipeError: the value is no mapping, or a key is no text.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(k, str) for k in value):
        raise RecipeError(f"{where} must be a mapping of names, got {value!r}")
    return value
