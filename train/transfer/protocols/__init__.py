"""The protocols: ways to measure a run on a task. This folder is their registry.

A file's `PROTOCOLS` lists its classes. Each is a frozen dataclass of the protocol's settings, with `measure`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

import yaml

from curate.errors import RecipeError, reject_unknown
from curate.recipes.registry import Registry
from curate.recipes.signatures import Signature
from train.transfer.features import Outcome
from train.transfer.shots import Draw
from train.transfer.tasks.task import Kind

DEFAULTS: dict[Kind, str] = {"classification": "linear", "detection": "faster-rcnn"}
PRESET = "preset"
Select = Literal["validation", "test"]

_WRITTEN = re.compile(r"([\w-]+)(?::([\w.-]+))?(?:\((.*)\))?", re.DOTALL).fullmatch


class TransferProtocol(Protocol):
    """What a protocol can do. Its settings decide its numbers; what does not (a cache, say) is none."""

    name: ClassVar[str]
    kind: ClassVar[Kind]  # of the tasks it is for
    learns: ClassVar[bool]  # whether it uses the draw; zero-shot does not
    frozen: ClassVar[bool]  # whether the backbone stays as it is, so that cells share its features
    chance_at_full: ClassVar[bool]  # whether seeds differ where all images are drawn

    def measure(self, subject: Any, drawn: Draw) -> Outcome:
        """Learn from a draw and answer on the whole test set."""


@cache
def protocols() -> dict[str, Any]:
    """Return the classes of all protocols by name."""
    return {made.name: made for module in Registry(__name__).modules() for made in module.PROTOCOLS}


def find_protocol(
    told: str | Mapping[str, Any] | TransferProtocol, *, where: str = "protocol"
) -> TransferProtocol:
    """Return a protocol with its settings, checked.

    Args:
        told: `knn`, `knn(k=200, temperature=0.1)`, `finetune:kornblith`, `finetune:kornblith(batch_size=128)`;
            `{knn: {k: 200}}` and `{finetune: {preset: kornblith, batch_size: 128}}`; or a protocol.
        where: what errors begin with.

    Raises:
        RecipeError: no such protocol, preset or setting, or a value that a setting cannot have.
    """
    if not isinstance(told, str | Mapping):
        return told
    name, settings = _parsed(told, where)
    reject_unknown(name, protocols(), f"no protocol {name!r}")
    made = protocols()[name]
    begin = _preset(made, settings.pop(PRESET, None), where)
    for field in dataclasses.fields(made):
        if str(field.type).startswith("tuple[") and isinstance(settings.get(field.name), int | float):
            settings[field.name] = [settings[field.name]]  # a grid of one point is written as that
    protocol = made(**Signature(made).bind(begin | settings, where=f"{where} {name}"))
    check = getattr(protocol, "check", None)
    if check:
        check()
    return protocol


def find_protocols(wanted: Sequence[str | Mapping[str, Any] | TransferProtocol]) -> list[TransferProtocol]:
    """Return protocols by name.

    Raises:
        RecipeError: as `find_protocol`, or none at all was asked for.
    """
    if not wanted:
        raise RecipeError("no protocols given", hint=f"there are {', '.join(protocols())}")
    return [find_protocol(one) for one in wanted]


def settings(protocol: TransferProtocol) -> dict[str, Any]:
    """Return a protocol's settings, as results record them."""
    return dataclasses.asdict(protocol)  # type: ignore[call-overload]


def written(name: str, config: Mapping[str, Any]) -> str:
    """Return how a protocol with some settings is written, the shortest way: what is as usual is left out.

    Args:
        name: of the protocol.
        config: its settings, as results record them.
    """
    made = protocols()[name]
    fields = {field.name: field.default for field in dataclasses.fields(made)}
    ways = []
    for preset, begin in {"": {}, **getattr(made, "PRESETS", {})}.items():
        usual = fields | begin
        other = [
            f"{key}={_short(value)}"
            for key, value in config.items()
            if _plain(usual.get(key)) != _plain(value)
        ]
        ways.append((name + (f":{preset}" if preset else ""), other))
    first, other = min(ways, key=lambda way: len(way[1]))
    return first + (f"({', '.join(other)})" if other else "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _preset(made: Any, name: str | None, where: str) -> dict[str, Any]:
    presets: dict[str, dict[str, Any]] = getattr(made, "PRESETS", {})
    if name is None:
        return {}
    reject_unknown(name, presets, f"{where}: {made.name} has no preset {name!r}")
    return dict(presets[name])


def _parsed(told: str | Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Return a protocol's name and settings, `preset` among them."""
    if isinstance(told, Mapping):
        if len(told) != 1:
            raise RecipeError(
                f"{where}: {dict(told)!r} names no protocol", hint="write it as {knn: {k: 200}}"
            )
        ((name, value),) = told.items()
        if not isinstance(value, Mapping | None):
            raise RecipeError(
                f"{where}: {name}: {value!r} are no settings", hint="write them as {knn: {k: 200}}"
            )
        return str(name), dict(value or {})
    written = _WRITTEN(told.strip())
    if not written:
        raise RecipeError(
            f"{where}: {told!r} cannot be read", hint="write it as knn, or knn(k=200, temperature=0.1)"
        )
    name, preset, inside = written.groups()
    try:
        pairs = [_pair(part) for part in _apart(inside or "")]
        found = {key.strip(): yaml.safe_load(value) for key, value in pairs}
        if len(found) < len(pairs):
            raise ValueError
    except (ValueError, yaml.YAMLError):
        raise RecipeError(
            f"{where}: the settings of {told!r} cannot be read", hint="write them as (k=200, temperature=0.1)"
        ) from None
    return name, found | ({PRESET: preset} if preset else {})


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise ValueError
    return key, value


def _apart(text: str) -> list[str]:
    """Cut at the commas that stand in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]
