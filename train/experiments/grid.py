"""What an experiment says: the grid of datasets, pre-training and transfer, read from one YAML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from curate.errors import RecipeError, reject_unknown
from curate.recipes.documents import read_yaml
from curate.recipes.recipe import NAME, Expect, Recipe, filled, load, parse
from curate.recipes.signatures import Count, Seed, Strict, explain

VALIDATION = "validation"  # the folder, beside the datasets', of the rows that none of them trains on
EXPERIMENT = "experiment.json"  # what an experiment did: its file, the order of its parts, accuracies, stages


class DatasetSpec(Strict):
    """One dataset of an experiment: a recipe's file, or its steps here.

    Args:
        recipe: a file, relative to the experiment's; without it the steps are applied to `source`.
        source: the experiment's own by default.
        shards: whether to copy the bytes into shards; an overlay otherwise.
        pretrain: whether to train on it; a dataset may be there to be compared only.
    """

    recipe: str | None = None
    source: dict[str, Any] | None = None
    steps: list[Any] = Field(default=[])
    expect: dict[str, Any] = Field(default={})
    shards: bool = False
    pretrain: bool = True


class MeasureSpec(Strict):
    """One way to measure every run on every task.

    Args:
        protocol: its name, or `{name: {setting: value}}`.
        shots: images of each class, and "full".
        seeds: draws of each shot count.
    """

    protocol: str | dict[str, dict[str, Any]] = "linear"
    shots: list[int | str] = Field(default=[1, 5, 10, 20, "full"])
    seeds: Count = 3


class TransferSpec(Strict):
    """What to measure every run on.

    Args:
        tasks: name → task, as `curate transfer --task` takes it.
        data: folders that hold what was downloaded of them.
        measure: how.
    """

    tasks: dict[str, str] = Field(min_length=1)
    data: list[str] = Field(default=[])
    measure: list[MeasureSpec] = Field(default=[MeasureSpec()])


class Experiment(Strict):
    """A grid of datasets, runs and results.

    Args:
        name: the report's title.
        about: paragraphs for the top of the report.
        source: of every dataset that names none.
        datasets: name → what is in it.
        validation: rows that no dataset trains on, for the accuracy on the pre-training task itself.
        coarse: a dataset whose classes group the others', for `coarse_top1`.
        pretrain: `method`, and its configuration; the same for every dataset.
        scratch: whether to measure the model without pre-training too.
        transfer: the tasks, and how to measure on them.
    """

    name: str
    seed: Seed = 0
    about: list[str] = Field(default=[])
    source: dict[str, Any] | None = None
    datasets: dict[str, DatasetSpec] = Field(min_length=1)
    validation: DatasetSpec | None = None
    coarse: str | None = None
    pretrain: dict[str, Any] = Field(default={})
    scratch: bool = True
    transfer: TransferSpec | None = None
    base: Path = Field(default=Path(), exclude=True)
    where: str = Field(default="experiment", exclude=True)

    def recipe(self, name: str, part: DatasetSpec, settings: Mapping[str, str] | None = None) -> Recipe:
        """Return the recipe of one of its datasets.

        Raises:
            RecipeError: it is none, it makes several sets, or its name leads out of the experiment's folder.
        """
        where = f"{self.where}, dataset {name}"
        if not re.fullmatch(NAME, name):
            raise RecipeError(
                f"{self.where}: datasets: {name!r} names no folder",
                hint="letters, digits, `.`, `_` and `-`, a letter or digit first",
            )
        if part.recipe is not None:
            recipe = load(self.base / part.recipe, settings)
            if recipe.family:
                raise RecipeError(
                    f"{where}: {part.recipe} has a `matrix:` and makes {len(recipe.family):,} sets, not one",
                    hint="give each set that is to be trained on a dataset here, with a recipe without `matrix:`",
                )
            return recipe.model_copy(update={"name": name})
        source = part.source or self.source
        if source is None:
            raise RecipeError(f"{where}: no source", hint="give the dataset or the experiment a `source:`")
        body = {"name": name, "seed": self.seed, "source": source, "steps": part.steps, "expect": part.expect}
        return parse(body, where=where, base=self.base)


def load_experiment(path: str | Path, settings: Mapping[str, str] | None = None) -> Experiment:
    """Read an experiment from a YAML file and fill in its variables.

    Raises:
        RecipeError: the file cannot be read, is no YAML, or is no experiment.
    """
    path = Path(path)
    body = filled(read_yaml(path), settings, where=str(path))
    known = [name for name, f in Experiment.model_fields.items() if not f.exclude]
    for name in body:
        reject_unknown(name, known, f"{path}: an experiment has no {name!r}")
    try:
        experiment = Experiment.model_validate(body | {"base": path.parent, "where": str(path)})
        for part in experiment.datasets.values():
            Expect.model_validate(part.expect)
    except ValidationError as error:
        raise explain(error, where=str(path), model=Experiment) from None
    if experiment.validation is not None and VALIDATION in experiment.datasets:
        raise RecipeError(
            f"{path}: datasets: {VALIDATION!r} is the name of what `validation:` says",
            hint="give it another name",
        )
    if experiment.coarse is not None:
        message = f"{path}: coarse: no dataset {experiment.coarse!r}"
        reject_unknown(experiment.coarse, experiment.datasets, message)
    return experiment
