"""COCO's average precisions of the same detections, by pycocotools."""

# I images, D detections and G objects of a class in all images, T overlaps

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.errors import MissingError
from train.transfer.detection.matches import Detections
from train.transfer.detection.task import GroundTruth
from train.transfer.metrics.average_precision import mean_of_known
from train.transfer.metrics.classification import Score

METRICS = {
    "coco_ap": slice(None),
    "coco_ap50": slice(0, 1),
    "coco_ap75": slice(5, 6),
}  # of the overlaps 0.5, 0.55, …


@dataclass(frozen=True)
class CocoMatches:
    """COCO's matches of the detections of a class.

    Args:
        right: bool right_TD, the surest detection first.
        counted: bool counted_TD; not those of difficult objects.
        images: images_D, positions of their images.
        truths: truths_I, objects to find in each image.
    """

    right: np.ndarray
    counted: np.ndarray
    images: np.ndarray
    truths: np.ndarray

    def precision(self, overlaps: slice, recalls: np.ndarray, weights_I: np.ndarray) -> float:
        """Return the mean of the best precision at each of the recalls or more; NaN with nothing to find.

        Args:
            overlaps: at which of them; the mean over them.
            recalls: 0..1, ascending.
            weights_I: how often each image counts.
        """
        truths = float(self.truths @ weights_I)
        if truths <= 0:
            return float("nan")
        right_TD, counted_TD = self.right[overlaps], self.counted[overlaps]
        weights_D = weights_I[self.images]
        hits_TD = np.cumsum(right_TD * counted_TD * weights_D, axis=1)
        wrong_TD = np.cumsum(~right_TD * counted_TD * weights_D, axis=1)
        precision_TD = hits_TD / (hits_TD + wrong_TD + np.spacing(1))
        best_TD = np.maximum.accumulate(precision_TD[:, ::-1], axis=1)[:, ::-1]
        found = []
        for hits_D, best_D in zip(hits_TD, best_TD, strict=True):
            at = np.searchsorted(hits_D / truths, recalls, side="left")
            found.append(np.append(best_D, 0.0)[at].mean())
        return float(np.mean(found))


def coco_scores(detections: Sequence[Detections], truths: Sequence[GroundTruth], classes: int) -> list[Score]:
    """Return `coco_ap` (mean over the overlaps 0.5, 0.55, … 0.95), `coco_ap50` and `coco_ap75`.

    Difficult objects are COCO's crowds: whatever lies in one is not counted. The values are pycocotools' own; the
    intervals are over the images, by its matching.

    Raises:
        MissingError: pycocotools is not installed.
    """
    evaluation = _evaluate(detections, truths, classes)
    answers = [_answers(evaluation, label, len(truths)) for label in range(classes)]
    values = dict(zip(METRICS, evaluation.stats[:3].tolist(), strict=True))
    return [_score(metric, values[metric], answers, evaluation.params.recThrs) for metric in METRICS]


def _score(metric: str, whole: float, answers: Sequence[CocoMatches], recalls: np.ndarray) -> Score:
    images = len(answers[0].truths)

    def value(weights_I: np.ndarray | None) -> float:
        if weights_I is None:
            return whole
        return mean_of_known(np.array([a.precision(METRICS[metric], recalls, weights_I) for a in answers]))

    return Score.bootstrapped(metric, value, images)


def _evaluate(detections: Sequence[Detections], truths: Sequence[GroundTruth], classes: int) -> Any:
    """Return pycocotools' evaluation, silent on stdout."""
    try:
        from pycocotools.coco import COCO  # type: ignore[import-untyped]
        from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingError(
            "COCO's average precision needs pycocotools", hint="pip install 'curate-train[detection]'"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": i, "width": t.width, "height": t.height} for i, t in enumerate(truths)],
            "categories": [{"id": label, "name": str(label)} for label in range(classes)],
            "annotations": _annotations(truths),
        }
        known.createIndex()
        rows = [(i, *box, c, label) for i, each in enumerate(detections) for box, c, label in _boxes(each)]
        detected = known.loadRes(np.array(rows)) if rows else _nothing(COCO, known)
        evaluation = COCOeval(known, detected, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    evaluation.stats = np.array([_stat(evaluation, where) for where in METRICS.values()])
    return evaluation


def _annotations(truths: Sequence[GroundTruth]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for i, truth in enumerate(truths):
        sized_M4 = truth.boxes - np.tile(truth.boxes[:, :2], 2) * np.array([0, 0, 1, 1])
        for box, label, difficult in zip(sized_M4.tolist(), truth.labels, truth.difficult, strict=True):
            made.append(
                {
                    "id": len(made) + 1,  # a match with number 0 would count as none
                    "image_id": i,
                    "category_id": int(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(difficult),
                }
            )
    return made


def _boxes(detections: Detections):  # -> Iterator of (x, y, width, height), confidence, label
    sized_N4 = detections.boxes - np.tile(detections.boxes[:, :2], 2) * np.array([0, 0, 1, 1])
    return zip(sized_N4.tolist(), detections.confidences.tolist(), detections.labels.tolist(), strict=True)


def _nothing(kind: Any, known: Any) -> Any:
    empty = kind()
    empty.dataset = known.dataset | {"annotations": []}
    empty.createIndex()
    return empty


def _stat(evaluation: Any, where: slice) -> float:
    """Return the mean precision, as COCOeval.summarize does: over the classes that there are, 100 detections."""
    precision_TRK = evaluation.eval["precision"][where, :, :, 0, -1]
    return float(precision_TRK[precision_TRK > -1].mean())


def _answers(evaluation: Any, label: int, images: int) -> CocoMatches:
    """Gather what was matched in each image; the surest first, equal ones in the order of the images."""
    overlaps, truths_I = len(evaluation.params.iouThrs), np.zeros(images)
    confidences, right, counted, places = [np.zeros(0)], [np.zeros((overlaps, 0), dtype=bool)], [], []
    counted.append(right[0])
    places.append(np.zeros(0, dtype=np.int64))
    of_class = evaluation.evalImgs[label * images : (label + 1) * images]
    for i, image in enumerate(of_class):
        if image is None:  # neither an object nor a detection
            continue
        truths_I[i] = (np.asarray(image["gtIgnore"]) == 0).sum()
        confidences.append(np.asarray(image["dtScores"]))
        right.append(np.asarray(image["dtMatches"]).reshape(overlaps, -1) > 0)
        counted.append(~np.asarray(image["dtIgnore"]).reshape(overlaps, -1).astype(bool))
        places.append(np.full(len(image["dtScores"]), i))
    order_D = np.argsort(-np.concatenate(confidences), kind="mergesort")
    right_TD, counted_TD = (np.concatenate(each, axis=1)[:, order_D] for each in (right, counted))
    return CocoMatches(right_TD, counted_TD, np.concatenate(places)[order_D], truths_I)
