"""Linear probe: L2-regularised logistic regression, by L-BFGS, on frozen features."""

# K images of a draw, D features, C classes

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from curate.errors import require
from train.transfer.features import Outcome, Subject
from train.transfer.protocols._model_selection import Choice, best, choices
from train.transfer.protocols._probes import Probe, few_threads, path
from train.transfer.shots import Draw, folds
from train.transfer.tasks.task import Kind

PUBLISHED = tuple(np.logspace(-6, 5, 45).tolist())  # Kornblith et al., CVPR 2019; SimCLR; DINOv2
COARSE = PUBLISHED[::4]  # its decades: 12 of the 45

# scikit-learn's default. At large C it stops short of the optimum by half a point of accuracy, a fraction of what
# a few images to choose by can tell, in a quarter of the time; so it serves to choose C and not to measure.
TOLERANCE_TO_CHOOSE = 1e-4


@dataclass(frozen=True)
class Linear:
    """The protocol: choose C by validation inside the draw, refit on all of it, test once.

    C is 1 / the weight of the L2 penalty on a sum of losses, as in scikit-learn. Features are standardised by
    the images fitted on. Validation is every fold in turn; from `one_fold_from` images on, one fold alone, a
    fifth of the draw. One shot leaves no image to choose by, and takes `fixed_c`. Where an image may have several
    labels, it is one regression a class.

    Args:
        grid: the values of C: the 45 published ones, of which the decades are tried and then the six around the
            best ("refined") or all ("published"); or the decades alone ("coarse").
        fixed_c: C where nothing can be held out: the default of scikit-learn.
        fold_count: into how many parts the draw is cut.
        one_fold_from: images of a draw from which one fold is enough.
        max_iterations: of L-BFGS for each C, starting from the solution of the C before.
        layer: a module of the backbone whose output is taken; its own features by default.
        select: "test" chooses C by the test set itself, which flatters; every such row says so.
    """

    name: ClassVar[str] = "linear"
    kind: ClassVar[Kind] = "classification"
    learns: ClassVar[bool] = True
    frozen: ClassVar[bool] = True
    chance_at_full: ClassVar[bool] = True

    grid: Literal["refined", "published", "coarse"] = "refined"
    fixed_c: float = 1.0
    fold_count: int = 5
    one_fold_from: int = 1000
    max_iterations: int = 1000
    layer: str | None = None
    select: Literal["validation", "test"] = "validation"

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        require(self.fixed_c > 0, "fixed_c", self.fixed_c, "above 0")
        require(self.fold_count > 1, "fold_count", self.fold_count, "2 or more")
        require(self.max_iterations > 0, "max_iterations", self.max_iterations, "1 or more")

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Fit on a draw and answer on the whole test set."""
        probe, select = self.fit(subject, drawn)
        answers_NC = probe.logits(subject.features(self.layer).test)
        return subject.outcome(answers_NC, {"c": probe.strength}, select)

    def fit(self, subject: Subject, drawn: Draw) -> tuple[Probe, str]:
        """Return the probe of a draw, and how its C was chosen."""
        features = subject.features(self.layer)
        features_KD = features.train[torch.from_numpy(drawn.rows).to(subject.device)]
        targets = torch.from_numpy(drawn.targets).to(subject.device)
        with few_threads(features_KD.numel() * subject.classes):
            held = self._choices(subject, features_KD, targets, drawn)
            limit, classes = self.max_iterations, subject.classes
            c = self._choose(held, subject) if held else self.fixed_c
            (probe,) = path(features_KD, targets, [c], classes=classes, max_iterations=limit)
        return probe, self.select if held else "fixed"

    def _choices(self, subject: Subject, features_KD: Tensor, targets: Tensor, drawn: Draw) -> list[Choice]:
        """Return what is fitted on and what is chosen by, as often as C is tried."""
        if self.select == "test":
            test = torch.from_numpy(subject.pixels.test.targets).to(targets.device)
            return [Choice(features_KD, targets, subject.features(self.layer).test, test)]
        cut = folds(drawn, count=self.fold_count)
        return choices(features_KD, targets, cut[:1] if len(drawn) >= self.one_fold_from else cut)

    def _choose(self, held: Sequence[Choice], subject: Subject) -> float:
        """Return the C that does best over the choices."""
        cs = PUBLISHED if self.grid == "published" else COARSE
        found = cs[self._best(held, cs, subject)]
        if self.grid != "refined":
            return found
        at = PUBLISHED.index(found)
        around = PUBLISHED[max(at - 3, 0) : at + 4]
        return around[self._best(held, around, subject)]

    def _best(self, held: Sequence[Choice], cs: Sequence[float], subject: Subject) -> int:
        def answers(choice: Choice) -> Iterator[Tensor]:
            probes = path(
                choice.fit,
                choice.fit_targets,
                cs,
                classes=subject.classes,
                max_iterations=self.max_iterations,
                tolerance=TOLERANCE_TO_CHOOSE,
            )
            return (probe.logits(choice.held) for probe in probes)

        return best(held, answers, subject.task.metric)


PROTOCOLS = (Linear,)
