"""Learn labels, by cross-entropy on a dataset's classes."""

# B images, C classes, T side of an image in pixels

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from train.augment.mixup import Mix
from train.augment.randaugment import RandAugment
from train.data.batch import Batch
from train.data.loader import Loader
from train.eval.accuracy import accuracy
from train.loop.config import LoopConfig
from train.loop.devices import autocast
from train.loop.distributed import Distributed
from train.loop.method import Columns, Method, PreparedBatch
from train.loop.start import run_method
from train.methods import loaders
from train.methods.loaders import check_batch_fits, check_classes
from train.models.registry import build, normalize
from train.runs import Run

PRESETS: dict[str, dict[str, Any]] = {
    # Huh et al. 2016 (https://arxiv.org/abs/1608.08614) name AlexNet; these are the numbers of Caffe's reference model.
    "huh2016": {
        "model": "alexnet", "image_size": 224, "epochs": 90, "batch_size": 256, "optimizer": "sgd", "lr": 0.01,
        "momentum": 0.9, "weight_decay": 5e-4, "schedule": "step", "step_epochs": 20.0, "step_factor": 0.1,
        "warmup_steps": 0, "label_smoothing": 0.0,
    },
    # Entezari et al. 2023 (https://arxiv.org/abs/2302.13602) name ResNet-50 and 90 epochs; the rest is how torchvision
    # trains it.
    "entezari2023": {
        "model": "resnet50", "image_size": 224, "epochs": 90, "batch_size": 256, "optimizer": "sgd", "lr": 0.1,
        "momentum": 0.9, "weight_decay": 1e-4, "schedule": "step", "step_epochs": 30.0, "step_factor": 0.1,
        "warmup_steps": 0, "label_smoothing": 0.0, "min_area": 0.08,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(LoopConfig):
    """What `train` can be told, besides what every method can.

    Args:
        model: the backbone: resnet18, resnet50, resnet101, alexnet (of 2012), alexnet-torchvision, convnet, clip/RN50
            and the like, or any of timm's.
        label_smoothing: share of each label that is spread over all classes.
        mixup: alpha of Mixup, which blends each image and its label with another's; 0 for none.
        cutmix: alpha of CutMix, which pastes a patch of another; 0 for none. With both, half of the images get each.
        randaugment: operations of RandAugment on each image; 0 for none.
        magnitude: how strong they are, 0 to 30.
    """

    model: str = "resnet18"
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    randaugment: int = 0
    magnitude: int = 9

    @property
    def mix(self) -> Mix:
        """How images and labels are mixed."""
        return Mix(mixup=self.mixup, cutmix=self.cutmix, smoothing=self.label_smoothing)

    @property
    def rand_augment(self) -> RandAugment:
        """The random operations on each image."""
        return RandAugment(self.randaugment, self.magnitude)

    def check(self) -> None:
        """Refuse values that cannot be meant."""
        super().check()
        if not 0 <= self.label_smoothing < 1:
            raise RecipeError(
                f"label_smoothing is {self.label_smoothing}", hint="it must be a share, in [0, 1)"
            )
        self.mix.check()
        self.rand_augment.check()


def train(
    dataset: Dataset,
    out: str | Path,
    config: SupervisedConfig,
    *,
    val: Dataset | None = None,
    quiet: bool = False,
) -> Run:
    """Train a classifier, or go on with one, or return it if it is finished.

    Rows of the splits val and test are not learned from. Top-1 and top-5 are measured at the end, on `val`,
    else on the dataset's own rows of the split val, if there are any.

    Args:
        dataset: what to learn from.
        out: the run's folder.
        config: how.
        val: another dataset of the same classes.
        quiet: say nothing on stderr.

    Raises:
        RecipeError: the config makes no sense, or `out` holds another run.
        DataError: labels are missing or out of range, there are too few classes or samples.
    """
    return run_method("supervised", _prepare, dataset, out, config, val=val, quiet=quiet)


def _prepare(
    dataset: Dataset,
    config: SupervisedConfig,
    val: Dataset | None,
    device: torch.device,
    distributed: Distributed,
) -> tuple[Method, Loader]:
    loader = loaders.train_loader(dataset, config, device, distributed)
    check_classes(dataset, val)
    _check_several_classes(loader)
    check_batch_fits(loader)
    held_out = loaders.val_loader(dataset, val, config, device)
    model = build(
        config.model,
        num_classes=len(dataset.classes),
        stem=config.stem,
        image_size=config.image_size,
        seed=config.seed,
    )
    model = model.to(device).to(memory_format=torch.channels_last)

    mix, rand_augment = config.mix, config.rand_augment

    def prepare_batch(batch: Batch) -> PreparedBatch:
        images, labels = batch.images, batch.labels
        if rand_augment.num_ops:
            images = rand_augment(images, batch.chances, batch.epoch)
        images = normalize(images)
        if mix:
            images, labels = mix(images, labels, batch.chances, batch.epoch, num_classes=len(dataset.classes))
        return PreparedBatch((images,), (labels,))

    smoothing = 0.0 if mix else config.label_smoothing  # a mix smooths its targets itself

    def loss(outputs: Columns, targets: Columns) -> Tensor:
        return functional.cross_entropy(outputs[0], targets[0], label_smoothing=smoothing)

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert held_out is not None
        return model_accuracy(module, held_out, config.precision)

    measures = evaluate if held_out else None
    return Method("supervised", model.spec, model, prepare_batch, loss, evaluate=measures), loader


def model_accuracy(model: nn.Module, loader: Loader, precision: str = "auto") -> dict[str, float]:
    """Return the accuracies of a classifier; see `accuracy`.

    Args:
        model: gives logits_BC; in eval mode.
        loader: of labelled samples.
        precision: as in the config.
    """

    def scores(batch: Batch) -> Tensor:
        with autocast(precision, loader.device):
            return model(normalize(batch.images))

    return accuracy(scores, loader)


def _check_several_classes(loader: Loader) -> None:
    present = len(np.unique(loader.labels_N))
    if present < 2:
        raise DataError(
            f"{loader.dataset.path}: {present} class among {len(loader)} samples to learn from",
            hint="a classifier needs two; `curate show` says what is in it",
        )
