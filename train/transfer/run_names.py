"""Runs by name: what opens one, and what tables call several, by what tells those of one name apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.models.registry import ModelSpec, build
from train.runs import RUN, Run, open_run, scratch_run

SCRATCH = "scratch:"
IMAGE_SIZE = 224  # pixels, of `scratch:MODEL` without a size

RunKey = tuple[str, str]  # its name and the digest of its weights


def open_run_or_scratch(name: str, image_size: int | None = None) -> Run:
    """Open a run by its folder; or, by `scratch:MODEL` or `scratch:RUN`, a model without pre-training.

    `scratch:RUN` has the model, stem and image size of that run, so the run is to be compared with it.

    Args:
        name: the folder, or `scratch:` and a model's name or a run's folder.
        image_size: of `scratch:MODEL`, in pixels; 224 by default.

    Raises:
        RecipeError: there is no such run or model.
        DataError: the run is damaged.
    """
    if not name.startswith(SCRATCH):
        return open_run(name)
    model = name.removeprefix(SCRATCH)
    if (Path(model) / RUN).exists():
        return scratch_run(open_run(model).spec)
    size = image_size or IMAGE_SIZE
    build(model, num_classes=0, image_size=size)  # refuses a wrong name before any work
    return scratch_run(ModelSpec(model, "imagenet", 0, size))


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run; None where nothing is.

    Args:
        digest: of its weights.
        dataset: the name of the dataset that it was trained on.
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
    def key(self) -> RunKey:
        """Identifies the run."""
        return self.name, self.digest


# The facts that tell runs of one name apart, the first that differ.
FORMS = {"method": "{}", "seed": "seed {}", "dataset": "on {}", "model": "{}", "folder": "in {}"}


def unique_labels(runs: Iterable[RunFacts]) -> dict[RunKey, str]:
    """Return a label for each run, each a different one: its name, and facts where several have that name.

    Args:
        runs: all of them; of several with one key the first counts.
    """
    by_key: dict[RunKey, RunFacts] = {}
    for run in runs:
        by_key.setdefault(run.key, run)
    by_name: dict[str, list[RunFacts]] = {}
    for run in by_key.values():
        by_name.setdefault(run.name, []).append(run)
    labels: dict[RunKey, str] = {group[0].key: name for name, group in by_name.items() if len(group) == 1}
    for name, group in by_name.items():
        for run, difference in zip(group, _differences(group), strict=True) if len(group) > 1 else ():
            label = f"{name} ({difference})"
            labels[run.key] = label if label not in labels.values() else f"{label}, {run.digest}"
    return {key: labels[key] for key in by_key}


def _differences(group: Sequence[RunFacts]) -> list[str]:
    """Return for each run of one name the fewest facts that tell it from the others; where none do, its digest."""
    facts: list[tuple[str, ...]] = [() for _ in group]
    for field, form in FORMS.items():
        values: list[Any] = [getattr(run, field) for run in group]
        finer = [
            (*before, form.format(value)) if value is not None else before
            for before, value in zip(facts, values, strict=True)
        ]
        if len(set(finer)) > len(set(facts)):
            facts = finer
        if len(set(facts)) == len(group):
            return [", ".join(own) or _short(run.digest) for own, run in zip(facts, group, strict=True)]
    return [", ".join((*own, _short(run.digest))) for own, run in zip(facts, group, strict=True)]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:8]
