"""Training a detector, and what it finds then."""

# B images

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.errors import DataError
from train.loop.determinism import seeded
from train.loop.devices import autocast
from train.loop.optim.optimizers import split_by_decay, steps_down
from train.transfer.detection.batches import (
    DetectionBatch,
    DetectionLoader,
    sequential_batches,
    shuffled_batches,
)
from train.transfer.detection.matches import Detections

SPOKEN_S = 30.0  # between two lines of progress


@dataclass(frozen=True)
class SgdSchedule:
    """How a detector learns, by SGD.

    Args:
        steps: batches.
        batch_size: images of a step.
        lr: of weights, at its peak.
        drop_steps: after which the rate is a tenth of what it was.
        warmup_steps: linearly up from a thousandth of the rate.
        bias_lr_factor: times the rate for biases; Caffe's networks have 2.
        momentum: of SGD.
        weight_decay: of weights; biases and norms have none.
        max_gradient_norm: longer gradients are cut; None for none.
    """

    steps: int
    batch_size: int
    lr: float
    drop_steps: tuple[int, ...]
    warmup_steps: int
    bias_lr_factor: float
    momentum: float
    weight_decay: float
    max_gradient_norm: float | None

    def rate(self, step: int) -> float:
        """Return the share of the peak rate at a step, from 0."""
        share = steps_down(step, self.drop_steps)
        if step < self.warmup_steps:
            share *= 0.001 + 0.999 * step / self.warmup_steps
        return share


def fit(
    detector: nn.Module,
    source: DetectionLoader,
    rows: np.ndarray,
    recipe: SgdSchedule,
    *,
    flip: bool,
    seed: int,
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Train a detector in place on some rows of a source.

    Equal seeds give equal weights on a CPU. On a GPU the gradients of regions are added up in no fixed order.

    Raises:
        DataError: the loss is no number; names the images of the batch.
    """
    optimizer = torch.optim.SGD(_groups(detector, recipe), lr=recipe.lr, momentum=recipe.momentum)
    peaks = [group["lr"] for group in optimizer.param_groups]
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    generator = torch.Generator().manual_seed(seed)
    order = shuffled_batches(rows, recipe.batch_size, recipe.steps, generator, flip=flip)
    progress = _Progress(recipe, say)
    detector.train()
    with seeded(device, seed):  # regions, sizes and dropout
        for step, batch in enumerate(source.batches(order, device)):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * recipe.rate(step)
            with autocast("auto", device):
                losses = detector(batch.images, batch.targets)
            loss = sum(losses.values())
            _check(loss, losses, step, batch)
            loss.backward()
            if recipe.max_gradient_norm is not None:
                nn.utils.clip_grad_norm_(learned, recipe.max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            progress.tell(step, loss)


def _check(loss: Tensor, losses: dict[str, Tensor], step: int, batch: DetectionBatch) -> None:
    if not torch.isfinite(loss):
        parts = ", ".join(f"{name} {value.item():.3g}" for name, value in losses.items())
        raise DataError(
            f"step {step + 1}: the loss is no number ({parts}), on images {', '.join(batch.keys)}",
            hint="try a smaller lr, longer warmup_steps, or norm=frozen; or look at the run's metrics",
        )


@torch.no_grad()
def predict(
    detector: nn.Module,
    source: DetectionLoader,
    *,
    batch_size: int,
    device: torch.device,
    say: Callable[[str], None],
) -> list[Detections]:
    """Return what a detector finds in all images of a source."""
    detector.eval()
    found: list[Detections] = []
    spoken = time.monotonic()
    for batch in source.batches(sequential_batches(len(source.split), batch_size), device):
        with autocast("auto", device):
            answers = detector(batch.images, batch.targets)
        found += [_found(answer) for answer in answers]
        if time.monotonic() - spoken > SPOKEN_S:
            spoken = time.monotonic()
            say(f"tested {len(found):,} of {len(source.split):,} images")
    return found


def _found(answer: dict[str, Tensor]) -> Detections:
    boxes, labels, scores = (answer[name].cpu().numpy() for name in ("boxes", "labels", "scores"))
    return Detections(boxes.astype(np.float64), labels - 1, scores)


@torch.no_grad()
def propose(
    detector: Any, source: DetectionLoader, *, batch_size: int, device: torch.device
) -> dict[str, np.ndarray]:
    """Return boxes_N4 of a detector's own proposal network for all images, the best first."""
    detector.eval()
    found: dict[str, np.ndarray] = {}
    for batch in source.batches(sequential_batches(len(source.split), batch_size), device):
        sizes = [image.shape[-2:] for image in batch.images]
        with autocast("auto", device):
            resized, _ = detector.transform(batch.images)
            boxes, _ = detector.rpn(resized, detector.backbone(resized.tensors))
        answers = detector.transform.postprocess(
            [{"boxes": each} for each in boxes], resized.image_sizes, sizes
        )
        for key, answer in zip(batch.keys, answers, strict=True):
            found[key] = answer["boxes"].float().cpu().numpy()
    return found


class _Progress:
    """ColumnExpr now and then how far a training is."""

    def __init__(self, recipe: SgdSchedule, say: Callable[[str], None]) -> None:
        self.recipe, self.say = recipe, say
        self.spoken, self.since = time.monotonic(), -1

    def tell(self, step: int, loss: Tensor) -> None:
        """Say it, if it is time."""
        seconds = time.monotonic() - self.spoken
        if seconds < SPOKEN_S:
            return
        speed = (step - self.since) * self.recipe.batch_size / seconds
        self.say(f"step {step + 1:,} of {self.recipe.steps:,}, loss {loss.item():.3f}, {speed:.1f} images/s")
        self.spoken, self.since = time.monotonic(), step


def _groups(detector: nn.Module, recipe: SgdSchedule) -> list[dict[str, Any]]:
    decaying, others = split_by_decay(detector)
    biases = [p for name, p in others.items() if name.endswith("bias")]
    groups: list[dict[str, Any]] = [
        {"params": [*decaying.values()], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in others.items() if not name.endswith("bias")]},
        {"params": biases, "lr": recipe.lr * recipe.bias_lr_factor},
    ]
    return [{"lr": recipe.lr, **group} for group in groups if group["params"]]
