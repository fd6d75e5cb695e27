"""Accuracy of a run on held-out rows."""

# B images, C classes of the run

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from curate.datasets.dataset import Dataset
from curate.errors import DataError
from curate.rows.manifest import Class
from train.data.loader import Loader
from train.eval.accuracy import Accuracy
from train.loop.devices import autocast, pick_device, pick_workers
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

    A row counts under the class that its class was merged into (`fine`). Rows of classes unknown to the run are left
    out; `n` counts the others. `coarse_top1` is the share whose predicted class falls into the same of the
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
    counted, right_group = Accuracy(), 0
    for batch in filter(len, whole_images(run, held_out, place, workers=pick_workers()).epoch(0)):
        with autocast("auto", place):
            logits_BC = model(run.spec.normalize(batch.images)).cpu()
        labels_B = batch.labels.cpu()
        own_B = to_own[labels_B]
        predicted_B = counted.add(logits_BC, own_B)
        right_group += int((own_group[predicted_B] == true_group[labels_B])[own_B >= 0].sum())
    if not counted.seen:
        raise DataError(
            f"{held_out.path}: none of its classes is one of run {run.name!r}", hint="validate on others"
        )
    measured: dict[str, Any] = {"top1": counted.shares()["top1"], "n": counted.seen}
    return measured | ({"coarse_top1": right_group / counted.seen} if coarse else {})


def whole_images(run: Run, dataset: Dataset, device: torch.device, **options: Any) -> Loader:
    """Return a loader of a dataset's images as a run sees them in testing: whole, in the manifest's order."""
    return Loader(
        dataset, batch_size=BATCH_SIZE, image_size=run.spec.image_size, seed=0, augment=False, order="manifest",
        device=device, **options,
    )  # fmt: skip


def _labels(classes: Sequence[Class]) -> dict[str, int]:
    """Return the label of every class id, and of every class that was merged into another."""
    return {name: i for i, c in enumerate(classes) for name in (c.id, *c.fine)}


def _find(labels: dict[str, int], wanted: Class) -> int:
    """Return the label that takes a class in, or -1."""
    return next((labels[name] for name in (wanted.id, *wanted.fine) if name in labels), -1)
