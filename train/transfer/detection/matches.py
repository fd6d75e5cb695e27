"""Which detections are right, by the rules of PASCAL VOC; from there on only counting is left.

A detection is compared with the one object of its class that it overlaps most, be that taken already or difficult. It
is right where they overlap enough and the object was not found before; a second hit is wrong. A detection whose object
is difficult is neither right nor wrong, and a difficult object is neither found nor missed.
"""

# N detections and M objects of an image, B boxes, C classes, I images

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from train.transfer.detection.task import GroundTruth
from train.transfer.metrics.average_precision import Rule, mean_of_known, ranked_precision
from train.transfer.metrics.classification import Score

# An overlap must be more than this, as in the Python ports that published numbers come from. The MATLAB devkit takes
# one of exactly a half as well.
OVERLAP = 0.5
RULES: dict[str, Rule] = {"voc_ap11": "11 points", "voc_ap": "area"}


@dataclass(frozen=True)
class Detections:
    """What a detector finds in an image.

    Args:
        boxes: float boxes_N4, xmin, ymin, xmax, ymax in pixels from the image's upper left corner.
        labels: labels_N, positions in the task's classes.
        confidences: confidences_N, the larger, the surer.
    """

    boxes: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray


@dataclass(frozen=True)
class RankedDetections:
    """The detections of a class over all images, the surest first, less those of difficult objects.

    Args:
        confidences: confidences_B, descending.
        right: bool right_B.
        images: images_B, positions of their images.
        truths: truths_I, objects to find in each image.
    """

    confidences: np.ndarray
    right: np.ndarray
    images: np.ndarray
    truths: np.ndarray

    def precision(self, rule: Rule, weights_I: np.ndarray | None = None) -> float:
        """Return the average precision, 0..1; NaN where there is nothing to find.

        Args:
            weights_I: how often each image counts; once by default.
        """
        truths = self.truths.sum() if weights_I is None else self.truths @ weights_I
        weights_B = None if weights_I is None else weights_I[self.images]
        return ranked_precision(self.confidences, self.right, float(truths), rule, weights_B)


def pixel_boxes(boxes_B4: np.ndarray) -> np.ndarray:
    """Return boxes as VOC writes them: the first and the last pixel, counted from 1."""
    return boxes_B4 + np.array([1, 1, 0, 0])


def overlaps(found_N4: np.ndarray, truths_M4: np.ndarray) -> np.ndarray:
    """Return intersection over union, NM, of boxes as VOC writes them.

    The last pixel belongs to a box, so that xmin = xmax is one pixel wide.
    """
    low_NM2 = np.maximum(found_N4[:, None, :2], truths_M4[None, :, :2])
    high_NM2 = np.minimum(found_N4[:, None, 2:], truths_M4[None, :, 2:])
    shared_NM = np.clip(high_NM2 - low_NM2 + 1, 0, None).prod(axis=2)
    union_NM = _areas(found_N4)[:, None] + _areas(truths_M4)[None, :] - shared_NM
    return shared_NM / union_NM


def _areas(boxes_B4: np.ndarray) -> np.ndarray:
    return (boxes_B4[:, 2:] - boxes_B4[:, :2] + 1).prod(axis=1)


def match_detections(
    found_N4: np.ndarray, truths_M4: np.ndarray, difficult_M: np.ndarray, threshold: float = OVERLAP
) -> np.ndarray:
    """Return for each detection of an image and class: 1 right, 0 wrong, -1 not counted.

    Args:
        found_N4: boxes as VOC writes them, the surest first.
        truths_M4: likewise, in the order of the file; of two that overlap equally the first is compared with.
        difficult_M: bool.
        threshold: an overlap must be more than this.
    """
    verdict_N = np.zeros(len(found_N4), dtype=np.int8)
    if not len(found_N4) or not len(truths_M4):
        return verdict_N
    overlap_NM = overlaps(found_N4, truths_M4)
    nearest_N = overlap_NM.argmax(axis=1)
    taken_M = np.zeros(len(truths_M4), dtype=bool)
    for i in np.flatnonzero(overlap_NM.max(axis=1) > threshold):
        nearest = nearest_N[i]
        if difficult_M[nearest]:
            verdict_N[i] = -1
        elif not taken_M[nearest]:
            verdict_N[i], taken_M[nearest] = 1, True
    return verdict_N


def rank_detections(
    detections: Sequence[Detections], truths: Sequence[GroundTruth], classes: int
) -> list[RankedDetections]:
    """Compare the detections of all images with their objects, class by class."""
    return [_rank(detections, truths, label) for label in range(classes)]


def _rank(detections: Sequence[Detections], truths: Sequence[GroundTruth], label: int) -> RankedDetections:
    confidences, verdicts, images = [], [], []
    truths_I = np.zeros(len(truths))
    for i, (detected, truth) in enumerate(zip(detections, truths, strict=True)):
        own_M = truth.labels == label
        truths_I[i] = (own_M & ~truth.difficult).sum()
        rows_N = np.flatnonzero(detected.labels == label)
        rows_N = rows_N[np.argsort(-detected.confidences[rows_N], kind="stable")]
        if len(rows_N):
            found_N4, truths_M4 = pixel_boxes(detected.boxes[rows_N]), pixel_boxes(truth.boxes[own_M])
            verdicts.append(match_detections(found_N4, truths_M4, truth.difficult[own_M]))
            confidences.append(detected.confidences[rows_N])
            images.append(np.full(len(rows_N), i))
    if not verdicts:
        return RankedDetections(np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64), truths_I)
    confidences_B, verdict_B, images_B = (np.concatenate(each) for each in (confidences, verdicts, images))
    order_B = np.argsort(-confidences_B, kind="stable")
    order_B = order_B[verdict_B[order_B] >= 0]
    return RankedDetections(confidences_B[order_B], verdict_B[order_B] == 1, images_B[order_B], truths_I)


def precisions(
    rankings: Sequence[RankedDetections], rule: Rule, weights_I: np.ndarray | None = None
) -> np.ndarray:
    """Return the average precision of each class, C; NaN of one without an object to find."""
    return np.array([ranking.precision(rule, weights_I) for ranking in rankings])


def voc_scores(rankings: Sequence[RankedDetections]) -> list[Score]:
    """Return `voc_ap11` and `voc_ap`, means over the classes that there are, over all images."""
    return [_score(metric, rankings) for metric in RULES]


def _score(metric: str, rankings: Sequence[RankedDetections]) -> Score:
    def value(weights_I: np.ndarray | None) -> float:
        return mean_of_known(precisions(rankings, RULES[metric], weights_I))

    return Score.bootstrapped(metric, value, len(rankings[0].truths))
