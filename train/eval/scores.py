"""Scores of samples by a run: a table by key, which recipes add to their rows by `join` and select by `top`."""

# N rows, B images, C classes

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from curate.datasets.dataset import Dataset
from curate.errors import DataError, RecipeError
from curate.io.files import write_atomic
from curate.rows.manifest import Class
from train.data.batch import Batch
from train.data.captions import caption_arguments
from train.data.loader import Loader
from train.data.provenance import find_dataset
from train.eval.evaluation import whole_images
from train.eval.zero_shot import class_weights, dual_encoder_of, prompts_of
from train.loop.devices import autocast, pick_device, pick_workers
from train.runs import Run

KINDS = {
    "loss": pa.float32(),
    "confidence": pa.float32(),
    "similarity": pa.float32(),
    "prediction": pa.string(),
    "correct": pa.bool_(),
}

Scores = dict[str, np.ndarray]  # by column: of B samples, or of N
Judge = Callable[[Batch], Scores]


def score(
    run: Run,
    dataset: Dataset,
    out: str | Path,
    *,
    split: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_broken_fraction: float = 0.01,
) -> Path:
    """Write a run's scores of each row, in the order of the manifest, and return the file.

    A supervised run gives `loss` (cross-entropy of the label), `prediction` (the id of the likeliest class),
    `confidence` (its probability) and `correct`. A clip run gives `similarity` (the cosine between image and
    caption, -1..1) and, of a dataset with classes, prediction, confidence and correct of zero-shot recognition
    by the texts it was trained with. NULL stands where a row has no label or caption, its class is none of the run's,
    or its image cannot be read.

    Args:
        run: a finished one.
        dataset: not necessarily the one that the run learned from; classes are found by their ids.
        out: a Parquet file; one that is there is replaced once all is done.
        split: score its rows alone.
        device: auto is a GPU where there is one.
        workers: processes that decode; None for one a core, 16 at most.
        max_broken_fraction: share of the images that may be unreadable.

    Raises:
        RecipeError: the run is of another method, or `out` is no Parquet file.
        DataError: too many images cannot be read, or the run's classes are not known any more.
    """
    out = Path(out)
    _check(run, out)
    place = pick_device(device)
    loader = whole_images(
        run,
        dataset,
        place,
        workers=pick_workers(workers),
        split=split,
        cache="none",
        crop_from=run.info.config.get("crop_from", "auto"),
        need_labels=False,
        max_broken_fraction=max_broken_fraction,
    )
    _write(out, loader, JUDGES[run.info.method](run, dataset, place))
    return out


def _check(run: Run, out: Path) -> None:
    if out.suffix != ".parquet" or out.is_dir():
        raise RecipeError(
            f"{out}: scores are written as Parquet", hint=f"name a file such as {out.stem}.parquet"
        )
    if not out.parent.is_dir():
        raise RecipeError(f"{out}: no folder {out.parent}", hint="make it first, or name another file")
    if run.info.method not in JUDGES:
        raise RecipeError(
            f"{run.path}: a {run.info.method} run judges no single samples",
            hint="score supervised and clip runs",
        )


def summary(file: Path) -> dict[str, float]:
    """Return how many rows a file of scores has, and the mean of each of its numbers."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    means: dict[str, float] = {"rows": len(table)}
    for name in table.column_names:
        column = table[name]
        if not pa.types.is_string(column.type) and column.null_count < len(column):
            means[name] = float(pc.mean(column.cast(pa.float64())).as_py())
    return means


def _write(out: Path, loader: Loader, judge: Judge) -> None:
    count = len(loader)
    scores: Scores = {}
    with torch.inference_mode():
        for batch in filter(len, loader.epoch(0)):
            for name, values_B in judge(batch).items():
                scores.setdefault(name, np.full(count, None, object))[batch.rows] = values_B
    loader.close()
    columns: dict[str, pa.Array] = {"key": pa.array(loader.samples.keys.take(np.arange(count)), pa.string())}
    columns |= {name: pa.array(scores[name], kind) for name, kind in KINDS.items() if name in scores}
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    write_atomic(out, sink.getvalue().to_pybytes())


def _classifier(run: Run, dataset: Dataset, device: torch.device) -> Judge:
    own = _classes_of(run, dataset)
    to_own = _labels_in(own, dataset.classes)
    model = run.model(device)

    def judge(batch: Batch) -> Scores:
        labels_B = _relabelled(batch.labels, to_own)
        with autocast("auto", device):
            logits_BC = model(run.spec.normalize(batch.images))
        loss_B = functional.cross_entropy(logits_BC, labels_B.clamp(min=0), reduction="none")
        return {"loss": _or_null(loss_B, labels_B), **_recognised(logits_BC, labels_B, own)}

    return judge


def _pairs(run: Run, dataset: Dataset, device: torch.device) -> Judge:
    dual_encoder, tokenizer = dual_encoder_of(run, device)
    weights_CE = None
    if dataset.classes:
        prompts_C = prompts_of(dataset.classes, captioned=_captioned(run, dataset))
        with autocast("auto", device):
            weights_CE = class_weights(dual_encoder, tokenizer, prompts_C, device)

    def judge(batch: Batch) -> Scores:
        captions = batch.captions
        tokens_BL = dual_encoder.cropped(tokenizer([text or "" for text in captions])).to(device)
        with autocast("auto", device):
            images_BE = dual_encoder.encode_images(run.spec.normalize(batch.images))
            texts_BE = dual_encoder.encode_texts(tokens_BL)
        has_text_B = torch.tensor([-1 if text is None else 0 for text in captions])
        scores: Scores = {"similarity": _or_null((images_BE * texts_BE).sum(dim=1), has_text_B)}
        if weights_CE is None:
            return scores
        logits_BC = images_BE @ weights_CE.T * dual_encoder.logit_scale.exp()
        return scores | _recognised(logits_BC, batch.labels, dataset.classes)

    return judge


def _recognised(logits_BC: Tensor, labels_B: Tensor, classes: tuple[Class, ...]) -> Scores:
    confidence_B, guess_B = logits_BC.softmax(dim=1).max(dim=1)
    return {
        "prediction": np.array([classes[guess].id for guess in guess_B.tolist()], object),
        "confidence": confidence_B.cpu().numpy().astype(object),
        "correct": _or_null(guess_B == labels_B, labels_B),
    }


def _or_null(values_B: Tensor, labels_B: Tensor) -> np.ndarray:
    """Return the values, and None where there is no label."""
    values = values_B.cpu().numpy().astype(object)
    values[labels_B.cpu().numpy() < 0] = None
    return values


def _classes_of(run: Run, dataset: Dataset) -> tuple[Class, ...]:
    """Return the classes of a classifier, in label order."""
    used = run.info.dataset
    classes = used.own_classes if used else dataset.classes
    if classes is None:
        classes = _learned_from(run, dataset).classes
    if len(classes) != run.spec.num_classes:
        raise DataError(
            f"{run.path}: {len(classes)} classes, and a head of {run.spec.num_classes}", hint="train it again"
        )
    return classes


def _captioned(run: Run, dataset: Dataset) -> Mapping[str, Any] | None:
    """Return what the `caption` step was told of the dataset that a run learned from."""
    used = run.info.dataset
    if used is not None and used.class_list is not None:
        return used.caption
    return caption_arguments(_learned_from(run, dataset))


def _learned_from(run: Run, dataset: Dataset) -> Dataset:
    """Return the dataset of an older run, which does not record its classes and captions itself."""
    used = run.info.dataset
    if used is None or used.digest == dataset.digest:
        return dataset
    found = find_dataset(used, run.path)
    if found is None:
        raise DataError(
            f"{run.path}: its classes are those of {used.path}, which is not there any more",
            hint="build that dataset again, or score the rows it learned from",
        )
    return found


def _labels_in(own: tuple[Class, ...], classes: tuple[Class, ...]) -> Tensor:
    """Return for each of the classes its label among `own`, -1 for none; what was merged counts as the whole."""
    labels = {name: i for i, c in enumerate(own) for name in (c.id, *c.fine)}
    return torch.tensor(
        [labels.get(c.id, -1) for c in classes] + [-1]
    )  # the last is for rows without a label


def _relabelled(labels_B: Tensor, to_own: Tensor) -> Tensor:
    known_B = torch.where(labels_B < len(to_own) - 1, labels_B, -1)  # beyond the classes is as good as none
    return to_own.to(labels_B.device)[known_B]


JUDGES: dict[str, Callable[[Run, Dataset, torch.device], Judge]] = {"supervised": _classifier, "clip": _pairs}
