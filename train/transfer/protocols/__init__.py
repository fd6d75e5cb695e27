"""The protocols of transfer: ways to measure a run on a task. This folder is their registry.

A file's `PROTOCOLS` lists its classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import yaml

from curate.errors import RecipeError, reject_unknown
from curate.recipes.registry import Registry
from curate.recipes.signatures import Signature
from train.transfer.protocols._base import TransferProtocol
from train.transfer.tasks.task import TaskKind

DEFAULTS: dict[TaskKind, str] = {"classification": "linear", "detection": "faster-rcnn"}
PRESET = "preset"
Select = Literal["validation", "test"]

_WRITTEN = re.compile(r"([\w-]+)(?::([\w.-]+))?(?:\((.*)\))?", re.DOTALL).fullmatch


@cache
def protocols() -> dict[str, type[TransferProtocol]]:
    """Return the classes of all protocols by name."""
    return {each.name: each for module in Registry(__name__).modules() for each in module.PROTOCOLS}


def find_protocol(
    protocol: str | Mapping[str, Any] | TransferProtocol, *, where: str = "protocol"
) -> TransferProtocol:
    """Return a protocol with its settings, checked.

    Args:
        protocol: `knn`, `knn(k=200, temperature=0.1)`, `finetune:kornblith`, `finetune:kornblith(batch_size=128)`;
            `{knn: {k: 200}}` and `{finetune: {preset: kornblith, batch_size: 128}}`; or a protocol.
        where: what errors begin with.

    Raises:
        RecipeError: no such protocol, preset or setting, or a value that a setting cannot have.
    """
    if not isinstance(protocol, str | Mapping):
        return protocol
    name, settings = _parsed(protocol, where)
    reject_unknown(name, protocols(), f"no protocol {name!r}")
    protocol_class = protocols()[name]
    preset = _preset(protocol_class, settings.pop(PRESET, None), where)
    for field in dataclasses.fields(protocol_class):
        if str(field.type).startswith("tuple[") and isinstance(settings.get(field.name), int | float):
            settings[field.name] = [settings[field.name]]  # a grid of one point is written as that
    found = protocol_class(**Signature(protocol_class).bind(preset | settings, where=f"{where} {name}"))
    found.check()
    return found


def find_protocols(given: Sequence[str | Mapping[str, Any] | TransferProtocol]) -> list[TransferProtocol]:
    """Return several protocols with their settings, checked.

    Raises:
        RecipeError: as `find_protocol`, or there are none.
    """
    if not given:
        raise RecipeError("no protocols given", hint=f"there are {', '.join(protocols())}")
    return [find_protocol(protocol) for protocol in given]


def protocol_text(name: str, settings: Mapping[str, Any]) -> str:
    """Return how a protocol with some settings is written, the shortest way: defaults are left out.

    Args:
        name: of the protocol.
        settings: as results record them.
    """
    protocol = protocols()[name]
    defaults = {field.name: field.default for field in dataclasses.fields(protocol)}
    candidates = []
    for preset, values in {"": {}, **protocol.PRESETS}.items():
        usual = defaults | values
        changes = [
            f"{key}={_short(value)}"
            for key, value in settings.items()
            if _plain(usual.get(key)) != _plain(value)
        ]
        candidates.append((name + (f":{preset}" if preset else ""), changes))
    start, changes = min(candidates, key=lambda candidate: len(candidate[1]))
    return start + (f"({', '.join(changes)})" if changes else "")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_short, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _preset(protocol: type[TransferProtocol], name: str | None, where: str) -> dict[str, Any]:
    if name is None:
        return {}
    reject_unknown(name, protocol.PRESETS, f"{where}: {protocol.name} has no preset {name!r}")
    return dict(protocol.PRESETS[name])


def _parsed(protocol: str | Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """Return a protocol's name and settings, `preset` among them."""
    if isinstance(protocol, Mapping):
        if len(protocol) != 1:
            raise RecipeError(
                f"{where}: {dict(protocol)!r} names no protocol", hint="write it as {knn: {k: 200}}"
            )
        ((name, value),) = protocol.items()
        if not isinstance(value, Mapping | None):
            raise RecipeError(
                f"{where}: {name}: {value!r} are no settings", hint="write them as {knn: {k: 200}}"
            )
        return str(name), dict(value or {})
    match = _WRITTEN(protocol.strip())
    if not match:
        raise RecipeError(
            f"{where}: {protocol!r} cannot be read", hint="write it as knn, or knn(k=200, temperature=0.1)"
        )
    name, preset, inside = match.groups()
    try:
        pairs = [_pair(part) for part in _split_at_commas(inside or "")]
        settings = {key.strip(): yaml.safe_load(value) for key, value in pairs}
        if len(settings) < len(pairs):
            raise ValueError
    except (ValueError, yaml.YAMLError):
        raise RecipeError(
            f"{where}: the settings of {protocol!r} cannot be read",
            hint="write them as (k=200, temperature=0.1)",
        ) from None
    return name, settings | ({PRESET: preset} if preset else {})


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise ValueError
    return key, value


def _split_at_commas(text: str) -> list[str]:
    """Split a text at the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{(") - (letter in ")}]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]
