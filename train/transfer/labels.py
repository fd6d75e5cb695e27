"""What runs are called where several stand side by side: by name, and by what tells those of one name apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Key = tuple[str, str]  # of a run: its name and the digest of its weights


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run; None where nothing is.

    Args:
        digest: of its weights.
        dataset: the name of what it learned from.
        folder: where it lies.
    """

    name: str
    digest: str
    method: str | None = None
    seed: int | None = None
    dataset: str | None = None
    model: str | None = None
    folder: str | None = None

    @property
    def key(self) -> Key:
        """What tells it from every other run."""
        return self.name, self.digest


SHOWN = {"method": "{}", "seed": "seed {}", "dataset": "on {}", "model": "{}", "folder": "in {}"}


def labels(runs: Iterable[RunFacts]) -> dict[Key, str]:
    """Return what each run is called, each otherwise.

    Args:
        runs: all; of those with one key the first counts.
    """
    known: dict[Key, RunFacts] = {}
    for run in runs:
        known.setdefault(run.key, run)
    by_name: dict[str, list[RunFacts]] = {}
    for run in known.values():
        by_name.setdefault(run.name, []).append(run)
    found: dict[Key, str] = {group[0].key: name for name, group in by_name.items() if len(group) == 1}
    for name, group in by_name.items():
        for run, told in zip(group, _apart(group), strict=True) if len(group) > 1 else ():
            label = f"{name} ({told})"
            found[run.key] = label if label not in found.values() else f"{label}, {run.digest}"
    return {key: found[key] for key in known}


def _apart(group: Sequence[RunFacts]) -> list[str]:
    """Return for each run of one name what it differs in from the others, as little as does; else its digest."""
    told: list[tuple[str, ...]] = [() for _ in group]
    for field, form in SHOWN.items():
        values: list[Any] = [getattr(run, field) for run in group]
        finer = [
            (*before, form.format(v)) if v is not None else before
            for before, v in zip(told, values, strict=True)
        ]
        if len(set(finer)) > len(set(told)):
            told = finer
        if len(set(told)) == len(group):
            return [", ".join(one) or _short(run.digest) for one, run in zip(told, group, strict=True)]
    return [", ".join((*one, _short(run.digest))) for one, run in zip(told, group, strict=True)]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:8]
