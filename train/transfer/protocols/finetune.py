"""Fine-tuning from end to end: a grid, chosen by validation inside the draw, then fitted again to all of it."""

# C classes

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from curate.captions.templates import texts
from curate.errors import require
from train.runs import Run
from train.transfer.features import ProtocolResult, RunFeatures
from train.transfer.images import TaskImages
from train.transfer.protocols._base import TransferProtocol
from train.transfer.protocols._classifiers import HeadInit, initial_classifier
from train.transfer.protocols._dual_encoder import require_text_encoder
from train.transfer.protocols._finetuning import FinetuneSettings, Hyperparameters
from train.transfer.protocols._model_selection import ValidationScore, validation_score
from train.transfer.protocols.linear import Linear
from train.transfer.shots import TrainSubset, make_folds
from train.transfer.tasks.task import Task

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
class Finetune(FinetuneSettings, TransferProtocol):
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
    frozen: ClassVar[bool] = False
    chance_at_full: ClassVar[bool] = True
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    fixed_lr: float = 1e-3
    weight_decays: tuple[float, ...] = (0.1,)
    decay_over_lr: bool = False
    epochs: tuple[int, ...] = (10,)
    head: HeadInit = "zeros"
    templates: tuple[str, ...] | str = ()
    select: Literal["validation", "test"] = "validation"

    def check(self) -> None:
        """Refuse settings that cannot be meant."""
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
            require_text_encoder(run)

    def points(self, lrs: tuple[float, ...] | None = None) -> list[Hyperparameters]:
        """Return the points of the grid."""
        return [
            Hyperparameters(lr, decay / lr if self.decay_over_lr else decay, epochs)
            for lr in lrs or self.lrs
            for decay in self.weight_decays
            for epochs in self.epochs
        ]

    def measure(self, features: RunFeatures, subset: TrainSubset) -> ProtocolResult:
        """Fine-tune on a draw and score the whole test set."""
        start = initial_classifier(features, subset, self.head, probe=Linear(), templates=self.templates)
        if self.select == "test":
            return self._select_by_test(features, subset, start)
        point, select = self._select_point(features, subset, start)
        model = self.train(features, subset, start, point)
        logits_NC = self.predict(features, model, self._images(features).test)
        return features.result(logits_NC, self._chosen(point, subset), select)

    def _select_point(
        self, features: RunFeatures, subset: TrainSubset, start: nn.Module
    ) -> tuple[Hyperparameters, str]:
        """Return the point of the grid that does best on what is held out, and how it was selected."""
        folds, grid = make_folds(subset, count=5), self.points()
        if len(grid) == 1:
            return grid[0], "none"
        if not folds:
            return self.points((self.fixed_lr,))[0], "fixed"
        train, validation = subset.only(folds[0].train), subset.only(folds[0].validation)
        if self.head in ("probe", "auto"):  # a probe of the whole draw would have seen the validation images
            start = initial_classifier(features, train, self.head, probe=Linear(), templates=self.templates)

        def score(point: Hyperparameters) -> ValidationScore:
            model = self.train(features, train, start, point)
            logits_NC = self.predict(features, model, self._images(features).train, validation.rows)
            targets = torch.from_numpy(validation.targets).to(features.device)
            return validation_score(logits_NC, targets, features.task.metric)

        return max(grid, key=score), "validation"

    def _select_by_test(self, features: RunFeatures, subset: TrainSubset, start: nn.Module) -> ProtocolResult:
        """Take the point of the grid and the epoch that do best on the test set."""
        test = self._images(features).test
        targets = torch.from_numpy(test.targets).to(features.device)
        best: list[tuple[ValidationScore, Tensor, dict[str, Any]]] = []

        def compare(model: nn.Module, epoch: int) -> None:
            logits_NC = self.predict(features, model, test)
            score = validation_score(logits_NC, targets, features.task.metric)
            if not best or score > best[0][0]:
                best[:] = [(score, logits_NC, self._chosen(point, subset) | {"epoch": epoch})]

        for point in self.points():
            self.train(features, subset, start, point, compare)
        _, logits_NC, chosen = best[0]
        return features.result(logits_NC, chosen, "test", notes=("chosen by the test set itself",))

    def _images(self, features: RunFeatures) -> TaskImages:
        return features.images_at(self.view(features.image_size))

    def _chosen(self, point: Hyperparameters, subset: TrainSubset) -> dict[str, Any]:
        chosen = asdict(point) | {"steps": self.total_steps(len(subset), point.epochs)}
        if self.steps is not None:
            del chosen["epochs"]
        return chosen


@dataclass(frozen=True)
class LpFt(Finetune):
    """The protocol: a linear probe first, then fine-tuning from its weights.

    Source: Kumar et al., ICLR 2022, https://arxiv.org/abs/2202.10054
    """

    name: ClassVar[str] = "lp-ft"
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: settings | {"head": "probe"} for name, settings in PRESETS.items()
    }

    head: HeadInit = "probe"


PROTOCOLS = (Finetune, LpFt)
