"""Fine-tuning from end to end: a run's backbone and a new head of zeros, AdamW, cosine, on the device."""

# N images, B of a batch, S pixels of a side, C classes

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from curate.errors import DataError
from train.configs import autocast
from train.models import normalize
from train.transfer.shots import Draw, folds
from train.transfer.subjects import Outcome, Subject, forward


@dataclass(frozen=True)
class Finetune:
    """The protocol: choose the learning rate by validation inside the draw, refit on all of it, test once.

    Validation is a fifth of the draw, at least one image of each class that has two. One shot leaves no image
    to choose by, and takes `fixed_lr`.

    Args:
        lrs: peak learning rates that are tried: three of the paper's four; its 1e-4 needs its 128 epochs.
        fixed_lr: the one where nothing can be held out.
        epochs: over the images fitted on, where the steps come to between `min_steps` and `max_steps`.
        batch_size: images of a step, or all of a smaller draw.
        warmup_fraction: of the steps, linearly; then a cosine to zero.
        crop_fraction: of the side, how far a crop is shifted at most. Flips are as the task allows.

    Source: Entezari et al., 2023, https://arxiv.org/abs/2302.13602: AdamW, weight decay 0.1, gradient norm 1.
    """

    name: ClassVar[str] = "finetune"
    lrs: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    fixed_lr: float = 1e-3
    epochs: int = 10
    min_steps: int = 60
    max_steps: int = 5000
    batch_size: int = 64
    warmup_fraction: float = 0.1
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    crop_fraction: float = 0.125

    def steps(self, images: int) -> int:
        """Return the steps of a training on so many images."""
        steps = self.epochs * images // min(self.batch_size, images)
        return min(max(steps, self.min_steps), self.max_steps)

    def measure(self, subject: Subject, drawn: Draw) -> Outcome:
        """Train on a draw and predict the whole test set."""
        cut, select = folds(drawn, count=5), "validation"
        lr = self.fixed_lr
        if cut and len(self.lrs) > 1:
            fit, choose = cut[0].fit, cut[0].choose
            lr = max(self.lrs, key=lambda lr: self._validate(subject, drawn, fit, choose, lr))
        elif cut:
            lr = self.lrs[0]
        else:
            select = "fixed"
        model = self.fit(subject, drawn.rows, lr=lr, seed=drawn.seed)
        with autocast("auto", subject.device):
            logits_NC = forward(model, subject.test_images)
        if not logits_NC.isfinite().all():
            raise DataError(
                f"{subject}: fine-tuning diverged at lr {lr:g}", hint="try smaller learning rates"
            )
        chosen = {"lr": lr, "steps": self.steps(len(drawn))}
        return Outcome(logits_NC.argmax(1).cpu().numpy(), chosen, select)

    def _validate(
        self, subject: Subject, drawn: Draw, fit: np.ndarray, choose: np.ndarray, lr: float
    ) -> tuple[float, float]:
        """Return accuracy and negated loss on the images to choose by; the lowest where training diverged."""
        model = self.fit(subject, drawn.rows[fit], lr=lr, seed=drawn.seed)
        labels_N = torch.from_numpy(drawn.labels[choose]).to(subject.device)
        with autocast("auto", subject.device):
            logits_NC = forward(model, subject.train_images[_on(subject.device, drawn.rows[choose])])
        if not logits_NC.isfinite().all():
            return (-1.0, -math.inf)
        accuracy = (logits_NC.argmax(1) == labels_N).double().mean().item()
        return (accuracy, -cross_entropy(logits_NC, labels_N).item())

    def fit(self, subject: Subject, rows: np.ndarray, *, lr: float, seed: int) -> nn.Module:
        """Train a copy of the subject's model on some of its training images, and return it in eval mode.

        Equal seeds give equal weights on one device.
        """
        device = subject.device
        model = copy.deepcopy(subject.model).train()
        images_N3SS = subject.train_images[_on(device, rows)]
        labels_N = torch.from_numpy(subject.pixels.train.labels[rows]).to(device)
        optimizer = torch.optim.AdamW(_groups(model, self.weight_decay), lr=lr)
        steps = self.steps(len(rows))
        generator = torch.Generator().manual_seed(seed)
        with _repeatable(device, seed):
            for step, batch in enumerate(_batches(len(rows), self.batch_size, steps, generator)):
                for group in optimizer.param_groups:
                    group["lr"] = lr * schedule(step, steps, self.warmup_fraction)
                images_B3SS = augment(
                    images_N3SS[batch.to(device)], self.crop_fraction, subject.task.flip, generator
                )
                with autocast("auto", device):
                    logits_BC = model(normalize(images_B3SS))
                cross_entropy(logits_BC.float(), labels_N[batch.to(device)]).backward()
                nn.utils.clip_grad_norm_(model.parameters(), self.max_gradient_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return model.eval()


def schedule(step: int, steps: int, warmup_fraction: float) -> float:
    """Return the learning rate of a step as a share of its peak: linear up, then a cosine to zero."""
    warmup = max(1, round(warmup_fraction * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def augment(images_B3SS: Tensor, crop_fraction: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by chance within a reflected border, and mirror half of them where `flip`."""
    count, _, _, side = images_B3SS.shape
    border = max(1, round(crop_fraction * side))
    shift_B2 = torch.randint(0, 2 * border + 1, (count, 2), generator=generator).to(images_B3SS.device)
    flip_B = torch.rand(count, generator=generator).to(images_B3SS.device) < (0.5 if flip else 0.0)
    along = torch.arange(side, device=images_B3SS.device)
    rows_BS = shift_B2[:, :1] + along
    columns_BS = shift_B2[:, 1:] + torch.where(flip_B[:, None], along.flip(0), along)
    padded = pad(images_B3SS.float(), (border,) * 4, mode="reflect").to(torch.uint8)
    which_B = torch.arange(count, device=images_B3SS.device)[:, None, None]
    images_BSS3 = padded[which_B, :, rows_BS[:, :, None], columns_BS[:, None, :]]
    return images_BSS3.permute(0, 3, 1, 2)


def _batches(count: int, batch_size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Give `steps` batches of one size from shuffles of 0..count-1, one after another."""
    size = min(batch_size, count)
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(count, generator=generator)])
        batch, waiting = waiting[:size], waiting[size:]
        yield batch


def _groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Decay matrices and filters, not biases and the scales of norms."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _on(device: torch.device, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows).to(device)


@contextmanager
def _repeatable(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what the model itself draws (dropout), and put the generators back as they were."""
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield
