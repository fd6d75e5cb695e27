"""How well a run does what it was trained for, on rows that it has not seen."""

# B images, C classes of the run

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from curate.datasets.dataset import Dataset
from curate.errors import DataError
from curate.rows.manifest import Class
from train.data.loader import Loader
from train.loop.config import LoopConfig, autocast, pick_device, pick_workers
from train.runs import Run

BATCH_SIZE = 256


@torch.inference_mode()
def held_out_accuracy(
    run: Run,
    trained_on: Dataset,
    held_out: Dataset,
    *,
    coarse: Sequence[Class] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Return `top1` of a run on rows whose true classes may be finer, or more, than the run's own.

    A row counts under the class that took its class in (`fine`); rows of classes that the run does not know are left
    out, and `n` says how many were not. `coarse_top1` is the share whose predicted class falls into the same of the
    `coarse` classes as the true one.

    Raises:
        DataError: none of the held-out classes is known to the run.
    """
    own = _labels(trained_on.classes)
    to_own = torch.tensor([_find(own, c) for c in held_out.classes])
    groups = _labels(coarse or ())
    own_group = torch.tensor([_find(groups, c) for c in trained_on.classes])
    true_group = torch.tensor([_find(groups, c) for c in held_out.classes])
    place = pick_device(device)
    model = run.model(place)
    seen = right = right_group = 0
    for batch in _loader(held_out, run, place).epoch(0):
        with autocast("auto", place):
            predicted_B = model(run.spec.normalize(batch.images)).argmax(dim=1).cpu()
        labels_B = batch.labels.cpu()
        known_B = to_own[labels_B] >= 0
        seen += int(known_B.sum())
        right += int((predicted_B == to_own[labels_B])[known_B].sum())
        right_group += int((own_group[predicted_B] == true_group[labels_B])[known_B].sum())
    if not seen:
        raise DataError(
            f"{held_out.path}: none of its classes is one of run {run.name!r}", hint="validate on others"
        )
    answer: dict[str, Any] = {"top1": right / seen, "n": seen}
    return answer | ({"coarse_top1": right_group / seen} if coarse else {})


def _loader(dataset: Dataset, run: Run, device: torch.device) -> Loader:
    return Loader(
        dataset,
        batch_size=BATCH_SIZE,
        image_size=run.spec.image_size,
        seed=0,
        augment=False,
        workers=pick_workers(LoopConfig()),
        order="manifest",
        split=None,
        device=device,
    )


def _labels(classes: Sequence[Class]) -> dict[str, int]:
    """Return the label of every class id, and of every class that was merged into another."""
    return {name: i for i, c in enumerate(classes) for name in (c.id, *c.fine)}


def _find(labels: dict[str, int], wanted: Class) -> int:
    """Return the label that takes a class in, or -1."""
    return next((labels[name] for name in (wanted.id, *wanted.fine) if name in labels), -1)
