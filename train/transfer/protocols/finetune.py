"""Fine-tuning from end to end: a grid, chosen by validation inside the draw, then fitted again to all of it."""

# C classes

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from curate.captions.templates import texts
from curate.errors import require
from train.runs import Run
from train.transfer.features import Outcome, Subject
from train.transfer.protocols._finetuning import Trial, Tuning
from train.transfer.protocols._heads import Head, classifier
from train.transfer.protocols._model_selection import Merit, merit
from train.transfer.protocols._texts import require_texts
from train.transfer.protocols.linear import Linear
from train.transfer.shots import Draw, folds
from train.transfer.tasks.task import Kind, Task

NEVER = 10**9  # steps: no bound
_CROPS = {"augment": "crop", "test_fraction": 0.875, "min_area": 0.08}  # resize 256, crop 224
PRESETS: dict[str, dict[str, Any]] = {
    # The authors' code: AdamW, 128 epochs, cosine with 500 steps of warm-up, timm's augmentation, CLIP from its
    # zero-shot head, SimCLR by LP-FT. Their choice by the test set is `select: test`.
    "entezari2023": {
        "lrs": (1e-4, 3e-4, 1e-3, 3e-3),
        "weight_decays": (0.1,),
        "epochs": (128,),
        "min_steps": 1,
        "max_steps": NEVER,
        "batch_size": 128,
        "warmup_steps": 500,
        "max_gradient_norm": 1.0,
        "augment": "randaugment",
        "test_fraction": 0.875,
        "head": "auto",
        "templates": "openai-80",
    },
    # As SimCLR's paper prints it: SGD with Nesterov's momentum, weight decay divided by the learning rate.
    "kornblith": {
        "lrs": tuple(np.logspace(-4, -1, 7).tolist()),
        "weight_decays": (0.0, *np.logspace(-6, -3, 7).tolist()),
        "decay_over_lr": True,
        "steps": 20_000,
        "batch_size": 256,
        "optimizer": "sgd",
        "warmup_steps": 0,
        "max_gradient_norm": None,
        "norm_momentum": "kornblith",
        **_CROPS,
    },
    "kornblith-scratch": {
        "lrs": tuple(np.logspace(-3, 0, 7).tolist()),
        "weight_decays": tuple(np.logspace(-5, -1.5, 8).tolist()),
        "decay_over_lr": True,
        "steps": 40_000,
        "batch_size": 256,
        "optimizer": "sgd",
        "warmup_steps": 0,
        "max_gradient_norm": None,
        "norm_momentum": "kornblith",
        **_CROPS,
    },
    # The light recipe of the benchmark; its draw is `--shots total-1000`.
    "vtab-1k": {
        "lrs": (0.01,),
        "fixed_lr": 0.01,
        "weight_decays": (0.0,),
        "steps": 1000,
        "batch_size": 64,
        "optimizer": "sgd",
        "schedule": "steps",
        "milestones": (0.3, 0.6, 0.9),
        "warmup_steps": 80,
        "max_gradient_norm": None,
        "augment": "none",
        "fit": "squash",
    },
}


@dataclass(frozen=True)
class Finetune(Tuning):
    """The protocol: try every point of the grid on the draw less a fifth, refit the best to all of it, test once.

    The fifth has at least one image of each class that has two. One shot leaves no image to choose by, and takes
    `fixed_lr` and the first of the others; a grid of one point is that point.

    Args:
        lrs: peak learning rates that are tried: three of Entezari et al.'s four; their 1e-4 needs their 128 epochs.
        fixed_lr: the one where nothing can be held out.
        weight_decays: that are tried, of filters and matrices; not of biases and norms.
        decay_over_lr: divide them by the learning rate, as Kornblith et al. do.
        epochs: passes over the images fitted on that are tried, where the steps come to between `min_steps` and
            `max_steps`.
        steps: in place of epochs.
        min_steps: however few the images are.
        max_steps: however many.
        batch_size: images of a step, or all of a smaller draw.
        optimizer: adamw; or sgd, with Nesterov's momentum of 0.9.
        schedule: after the warm-up, a cosine to zero; or a tenth at each of `milestones`.
        milestones: shares of the steps.
        warmup_fraction: of the steps, linearly.
        warmup_steps: in place of the fraction.
        max_gradient_norm: gradients are cut to it; null for any.
        label_smoothing: of the cross-entropy; of one label an image.
        norm_momentum: batch norms' own, or Kornblith et al.'s, by the steps of an epoch.
        augment: shift (within a reflected border), crop (a random resized crop), randaugment (that, two operations at
            the strength of timm's m9, and a quarter of the images with a rectangle erased), none. Flips are as the task
            allows.
        shift_fraction: of the side, how far at most.
        min_area: the smallest share of the image that a crop takes.
        test_fraction: the middle that testing sees; 0.875 is a resize to 256 and a crop of 224.
        fit: crop (short side, the middle) or squash (both sides).
        head: where it starts: zeros; probe (linear probe, then fine-tuning); zero-shot (a run of clip, from the texts
            of its classes); auto (zero-shot for clip, probe for simclr, else zeros).
        templates: for a zero-shot head; the task's own by default.
        select: "test" chooses rate and epoch by the test set itself, as Entezari et al. did; every such row says so.

    Source: Entezari et al. 2023, https://arxiv.org/abs/2302.13602; Kornblith et al., CVPR 2019; VTAB,
    https://arxiv.org/abs/1910.04867
    """

    name: ClassVar[str] = "finetune"
    kind: ClassVar[Kind] = "classification"
    learns: ClassVar[bool] = True
    frozen: ClassVar[bool] = False
    chance_at_full: ClassVar[bool] = True
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    fixed_lr: float = 1e-3
    weight_decays: tuple[float, ...] = (0.1,)
    decay_over_lr: bool = False
    epochs: tuple[int, ...] = (10,)
    head: Head = "zeros"
    templates: tuple[str, ...] | str = ()
    select: Literal["validation", "test"] = "validation"

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        super().check()
        for name in ("lrs", "epochs"):
            require(min(getattr(self, name), default=0) > 0, name, getattr(self, name), "numbers above 0")
        require(self.fixed_lr > 0, "fixed_lr", self.fixed_lr, "above 0")
        if self.templates:
            texts(self.templates)
        require(
            min(self.weight_decays, default=-1) >= 0, "weight_decays", self.weight_decays, "numbers from 0"
        )

    def refuse(self, run: Run, task: Task) -> None:
        """Refuse a head of texts for a run that has none."""
        if self.head == "zero-shot":
            require_texts(run)

    def trials(self, lrs: tuple[float, ...] | None = None) -> list[Trial]:
        """Return the points of the grid."""
        return [
            Trial(lr, decay / lr if self.decay_over_lr else decay, epochs)
            for lr in lrs or self.lrs
            for decay in self.weight_decays
            for epochs in self.epochs
        ]

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Train on a draw and answer on the whole test set."""
        start = classifier(subject, drawn, self.head, probe=Linear(), templates=self.templates)
        if self.select == "test":
            return self._by_test(subject, drawn, start)
        trial, select = self._chosen(subject, drawn, start)
        model = self.train(subject, drawn, start, trial)
        answers_NC = self.answers(subject, model, self._pixels(subject).test)
        return subject.outcome(answers_NC, self._told(trial, drawn), select)

    def _chosen(self, subject: Subject, drawn: Draw, start: nn.Module) -> tuple[Trial, str]:
        """Return the point of the grid that does best on what is held out, and how it was chosen."""
        cut, trials = folds(drawn, count=5), self.trials()
        if len(trials) == 1:
            return trials[0], "none"
        if not cut:
            return self.trials((self.fixed_lr,))[0], "fixed"
        fit, choose = part(drawn, cut[0].fit), part(drawn, cut[0].choose)
        if self.head in ("probe", "auto"):  # a probe of the whole draw would have seen what is chosen by
            start = classifier(subject, fit, self.head, probe=Linear(), templates=self.templates)
        return max(trials, key=lambda trial: self._merit(subject, fit, choose, start, trial)), "validation"

    def _merit(self, subject: Subject, fit: Draw, choose: Draw, start: nn.Module, trial: Trial) -> Merit:
        model = self.train(subject, fit, start, trial)
        answers_NC = self.answers(subject, model, self._pixels(subject).train, choose.rows)
        targets = torch.from_numpy(choose.targets).to(subject.device)
        return merit(answers_NC, targets, subject.task.metric)

    def _by_test(self, subject: Subject, drawn: Draw, start: nn.Module) -> Outcome:
        """Take the trial and the epoch that do best on the test set."""
        test = self._pixels(subject).test
        targets = torch.from_numpy(test.targets).to(subject.device)
        found: list[tuple[Merit, Tensor, dict[str, Any]]] = []

        def watch(model: nn.Module, epoch: int) -> None:
            answers_NC = self.answers(subject, model, test)
            value = merit(answers_NC, targets, subject.task.metric)
            if not found or value > found[0][0]:
                found[:] = [(value, answers_NC, self._told(trial, drawn) | {"epoch": epoch})]

        for trial in self.trials():
            self.train(subject, drawn, start, trial, watch)
        _, answers_NC, chosen = found[0]
        return subject.outcome(answers_NC, chosen, "test", notes=("chosen by the test set itself",))

    def _pixels(self, subject: Subject):
        return subject.seen(self.view(subject.image_size))

    def _told(self, trial: Trial, drawn: Draw) -> dict[str, Any]:
        told = asdict(trial) | {"steps": self.total_steps(len(drawn), trial.epochs)}
        if self.steps is not None:
            del told["epochs"]
        return told


@dataclass(frozen=True)
class LpFt(Finetune):
    """The protocol: a linear probe first, then fine-tuning from its weights.

    Source: Kumar et al., ICLR 2022, https://arxiv.org/abs/2202.10054
    """

    name: ClassVar[str] = "lp-ft"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: told | {"head": "probe"} for name, told in PRESETS.items()
    }

    head: Head = "probe"


def part(drawn: Draw, places: np.ndarray) -> Draw:
    """Return a part of a draw: what stands at some places of it."""
    return replace(
        drawn,
        rows=drawn.rows[places],
        targets=drawn.targets[places],
        keys=tuple(drawn.keys[i] for i in places.tolist()),
    )


PROTOCOLS = (Finetune, LpFt)
