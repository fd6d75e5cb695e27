"""The ways to measure a run on a task. Each is a frozen dataclass of its settings, with `measure`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from curate.errors import RecipeError, did_you_mean
from train.transfer.finetunes import Finetune
from train.transfer.probes import Linear
from train.transfer.shots import Draw
from train.transfer.subjects import Outcome, Subject


class TransferProtocol(Protocol):
    """What a protocol can do."""

    name: ClassVar[str]

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Learn from a draw and predict the whole test set."""


PROTOCOLS: dict[str, type[Linear] | type[Finetune]] = {p.name: p for p in (Linear, Finetune)}


def find_protocols(wanted: Sequence[str | TransferProtocol]) -> list[TransferProtocol]:
    """Return protocols by name, at their defaults; those given as objects stay as they are.

    Raises:
        RecipeError: there is none of a name, or none at all was asked for.
    """
    if not wanted:
        raise RecipeError("no protocols given", hint=f"there are {', '.join(PROTOCOLS)}")
    found: list[TransferProtocol] = []
    for protocol in wanted:
        if isinstance(protocol, str):
            if protocol not in PROTOCOLS:
                near = did_you_mean(protocol, PROTOCOLS)
                raise RecipeError(
                    f"no protocol {protocol!r}", hint=near or f"there are {', '.join(PROTOCOLS)}"
                )
            found.append(PROTOCOLS[protocol]())
        else:
            found.append(protocol)
    return found


def settings(protocol: TransferProtocol) -> dict[str, Any]:
    """Return a protocol's settings, as results record them."""
    return dataclasses.asdict(protocol)  # type: ignore[call-overload]
