"""Training a run's backbone and a head from end to end on a draw: what every way of fine-tuning shares."""

# K images of a draw, B of a batch, S pixels of a side, C classes

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from curate.errors import require
from curate.rows.chance import chance
from train.augment.crops import crop_batch, random_crops
from train.augment.randaugment import RandAugment
from train.augment.upload import upload
from train.loop.determinism import seeded
from train.loop.devices import autocast, number_type
from train.loop.optim.optimizers import adamw, decay_groups, half_cosine, steps_down
from train.transfer.features import BATCH, RunFeatures
from train.transfer.images import LabeledImages, ResizeMode, SquareView
from train.transfer.protocols._probes import classification_loss
from train.transfer.shots import TrainSubset

EpochCallback = Callable[[nn.Module, int], None]  # is called with the model and the epoch
# timm's m9 is 9 of 10, and 27 of torchvision's 30; and each operation is done to half of the images
RANDAUGMENT = RandAugment(num_ops=2, magnitude=27, probability=0.5)
ERASED_FRACTION = 0.25  # of the images, where there is RandAugment


@dataclass(frozen=True)
class Hyperparameters:
    """A point of the grid: the peak learning rate, the weight decay as the optimiser has it, passes over the draw."""

    lr: float
    weight_decay: float
    epochs: int


@dataclass(frozen=True)
class FinetuneSettings:
    """How a model is trained on a draw. `Finetune` tells its fields."""

    batch_size: int = 64
    steps: int | None = None
    min_steps: int = 60
    max_steps: int = 5000
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["cosine", "steps"] = "cosine"
    milestones: tuple[float, ...] = (0.3, 0.6, 0.9)
    warmup_fraction: float = 0.1
    warmup_steps: int | None = None
    max_gradient_norm: float | None = 1.0
    label_smoothing: float = 0.0
    norm_momentum: Literal["own", "kornblith"] = "own"
    augment: Literal["shift", "crop", "randaugment", "none"] = "shift"
    shift_fraction: float = 0.125
    min_area: float = 0.08
    test_fraction: float = 1.0
    fit: ResizeMode = "crop"

    def check(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            RecipeError: the first of them.
        """
        for name in ("batch_size", "min_steps", "max_steps", "steps", "max_gradient_norm"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "above 0")
        require(0 <= self.shift_fraction <= 0.5, "shift_fraction", self.shift_fraction, "in [0, 0.5]")
        require((self.warmup_steps or 0) >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        require(
            all(0 < one < 1 for one in self.milestones), "milestones", self.milestones, "shares in (0, 1)"
        )
        for name in ("warmup_fraction", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "in [0, 1)")
        for name in ("min_area", "test_fraction"):
            require(0 < getattr(self, name) <= 1, name, getattr(self, name), "in (0, 1]")

    def view(self, image_size: int) -> SquareView:
        """Return how images are kept: larger than they are seen, where crops are cut from them."""
        return SquareView(round(image_size / self.test_fraction), self.fit)

    def total_steps(self, images: int, epochs: int) -> int:
        """Return the steps of a training on so many images."""
        if self.steps is not None:
            return self.steps
        return min(max(epochs * images // min(self.batch_size, images), self.min_steps), self.max_steps)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step as a share of its peak: linear up, then down to or towards zero.

        A training that is shorter than `warmup_steps` ends before the peak, as in the authors' code.
        """
        rise = max(1, round(self.warmup_fraction * steps) if self.warmup_steps is None else self.warmup_steps)
        if step < rise:
            return (step + 1) / rise
        if self.schedule == "steps":
            return steps_down(step, [share * steps for share in self.milestones])
        return half_cosine(step - rise, steps - rise)

    def train(
        self,
        features: RunFeatures,
        subset: TrainSubset,
        model: nn.Module,
        point: Hyperparameters,
        on_epoch: EpochCallback | None = None,
    ) -> nn.Module:
        """Train a copy of a model on a draw, and return it in eval mode.

        Equal seeds give equal weights on one device.

        Args:
            features: whose images are trained on.
            subset: which of them.
            model: from normalised images to logits_BC.
            point: the point of the grid.
            on_epoch: is called with the model, in eval mode, after each epoch of the draw.
        """
        device = features.device
        model = copy.deepcopy(model).train()
        steps, size = self.total_steps(len(subset), point.epochs), min(self.batch_size, len(subset))
        self._set_norms(model, len(subset) / size)
        optimizer = self._optimizer(model, point)
        batches = _Batches(self, features, subset)
        with seeded(device, subset.seed):  # dropout and erasing
            for step, rows in enumerate(_shuffles(len(subset), self.batch_size, steps, subset.seed)):
                for group in optimizer.param_groups:
                    group["lr"] = point.lr * self.rate(step, steps)
                images_B3SS, targets = batches.of(rows, step)
                with autocast(autocast_precision(device), device):
                    logits_BC = model(images_B3SS)
                classification_loss(logits_BC.float(), targets, self.label_smoothing).backward()
                if self.max_gradient_norm is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), self.max_gradient_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                epochs = (step + 1) * size // len(subset)
                if on_epoch is not None and (epochs > step * size // len(subset) or step + 1 == steps):
                    on_epoch(model.eval(), epochs)
                    model.train()
        return model.eval()

    def predict(
        self, features: RunFeatures, model: nn.Module, pixels: LabeledImages, rows: np.ndarray | None = None
    ) -> Tensor:
        """Return a model's logits_NC for images of a split as they are seen in testing; all of them by default."""
        found = []
        rows = np.arange(len(pixels)) if rows is None else rows
        with torch.no_grad():
            for start in range(0, len(rows), BATCH):
                squares = pixels.squares.take(rows[start : start + BATCH], features.device)
                with autocast(autocast_precision(features.device), features.device):
                    found.append(
                        model(features.run.spec.normalize(center_crop(squares, features.image_size))).float()
                    )
        return torch.cat(found)

    def _optimizer(self, model: nn.Module, point: Hyperparameters) -> torch.optim.Optimizer:
        groups = decay_groups(model, point.weight_decay)
        if self.optimizer == "adamw":
            return adamw(groups, lr=point.lr)
        fused = groups[0]["params"][0].is_cuda
        return torch.optim.SGD(groups, lr=point.lr, momentum=0.9, nesterov=True, fused=fused)

    def _set_norms(self, model: nn.Module, a_pass: float) -> None:
        """Let batch norms forget as in Kornblith et al.: their momentum max(1 - 10/s, 0.9) is one minus torch's."""
        if self.norm_momentum == "kornblith":
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = min(10 / a_pass, 0.1)


class _Batches:
    """What the model is shown at a step."""

    def __init__(self, tuning: FinetuneSettings, features: RunFeatures, subset: TrainSubset) -> None:
        self.tuning, self.features, self.subset = tuning, features, subset
        self.squares = features.images_at(tuning.view(features.image_size)).train.squares
        self.targets = upload(subset.targets, features.device)
        self.chances_K = np.array([chance(key, subset.seed, "finetune") for key in subset.keys], np.uint64)
        self.generator = torch.Generator().manual_seed(subset.seed)
        self.erase = None
        if tuning.augment == "randaugment":
            from timm.data.random_erasing import RandomErasing

            self.erase = RandomErasing(ERASED_FRACTION, mode="pixel", device=str(features.device))

    def of(self, rows: np.ndarray, step: int) -> tuple[Tensor, Tensor]:
        """Return normalised images_B3SS, changed by chance, and their targets."""
        device = self.features.device
        squares = self.squares.take(self.subset.rows[rows], device)
        images_B3SS = self.features.run.spec.normalize(self._changed(squares, rows, step))
        if self.erase is not None:
            images_B3SS = self.erase(images_B3SS)
        return images_B3SS, self.targets[upload(rows, device)]

    def _changed(self, squares: Tensor, rows: np.ndarray, step: int) -> Tensor:
        how, size, flip = self.tuning, self.features.image_size, self.features.task.flip
        if how.augment == "none":
            return center_crop(squares, size)
        if how.augment == "shift":
            return shift(center_crop(squares, size), how.shift_fraction, flip, self.generator)
        sides = np.array(squares.shape[2:])
        crops = random_crops(self.chances_K[rows], step, min_area=how.min_area, shape=sides)
        crops = crops if flip else crops._replace(flip=np.zeros_like(crops.flip))
        images_B3SS = crop_batch(squares.permute(0, 2, 3, 1), crops, size)
        if how.augment == "randaugment":
            return RANDAUGMENT(images_B3SS, self.chances_K[rows], step)
        return images_B3SS


def autocast_precision(device: torch.device) -> str:
    """Return what to compute in: bf16 where a GPU has it, else float32, because gradients underflow in fp16."""
    return "fp32" if number_type("auto", device) == torch.float16 else "auto"


def center_crop(images_B3SS: Tensor, size: int) -> Tensor:
    """Return the middle of squares."""
    at = (images_B3SS.shape[-1] - size) // 2
    return images_B3SS[:, :, at : at + size, at : at + size]


def shift(images_B3SS: Tensor, shift_fraction: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by chance within a reflected border, and mirror half of them where `flip`."""
    count, _, _, side = images_B3SS.shape
    border = round(shift_fraction * side)
    shift_B2 = upload(torch.randint(0, 2 * border + 1, (count, 2), generator=generator), images_B3SS.device)
    flip_B = upload(torch.rand(count, generator=generator) < (0.5 if flip else 0.0), images_B3SS.device)
    along = torch.arange(side, device=images_B3SS.device)
    rows_BS = shift_B2[:, :1] + along
    columns_BS = shift_B2[:, 1:] + torch.where(flip_B[:, None], along.flip(0), along)
    padded = pad(images_B3SS.float(), (border,) * 4, mode="reflect").to(torch.uint8)
    which_B = torch.arange(count, device=images_B3SS.device)[:, None, None]
    images_BSS3 = padded[which_B, :, rows_BS[:, :, None], columns_BS[:, None, :]]
    return images_BSS3.permute(0, 3, 1, 2)


def _shuffles(count: int, batch_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Give `steps` batches of one size from shuffles of 0..count-1, one after another."""
    generator = np.random.default_rng(seed)
    size = min(batch_size, count)
    waiting = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(count)])
        batch, waiting = waiting[:size], waiting[size:]
        yield batch
