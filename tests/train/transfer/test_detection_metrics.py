"""VOC's average precision: each of its rules alone, and all of them on real detections; COCO's beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from voc_folders import SHARED, unpack

from curate.errors import MissingError
from train.transfer.detection.coco import METRICS, _answers, _evaluate, coco_scores
from train.transfer.detection.matches import (
    Detections,
    RankedDetections,
    match_detections,
    overlaps,
    precisions,
    rank_detections,
    voc_scores,
)
from train.transfer.detection.task import GroundTruth
from train.transfer.tasks.readers.voc import CLASSES, read_annotation


def truth(
    *boxes: tuple[float, ...], difficult: tuple[int, ...] = (), labels: tuple[int, ...] | None = None
) -> GroundTruth:
    """Return the objects of an image of 100 x 100 pixels, of class 0 by default."""
    named = np.zeros(len(boxes), dtype=np.int64) if labels is None else np.array(labels)
    hard = np.isin(np.arange(len(boxes)), difficult)
    return GroundTruth(100, 100, np.array(boxes, dtype=float).reshape(-1, 4), named, hard)


def found(*boxes: tuple[float, ...], confidences: tuple[float, ...] | None = None) -> Detections:
    """Return detections of class 0, the surest first by default."""
    sure = np.linspace(0.9, 0.1, len(boxes)) if confidences is None else np.array(confidences)
    return Detections(np.array(boxes, dtype=float).reshape(-1, 4), np.zeros(len(boxes), dtype=np.int64), sure)


def average(said: list[Detections], truths: list[GroundTruth]) -> dict[str, float]:
    """Return VOC's scores of class 0."""
    return {score.metric: score.value for score in voc_scores(rank_detections(said, truths, 1))}


SQUARE = (10.0, 10.0, 30.0, 30.0)
AWAY = (60.0, 60.0, 80.0, 80.0)


def test_last_pixel_belongs_to_a_box() -> None:
    pixel, same, beside = np.array([[5, 5, 5, 5]]), np.array([[5, 5, 5, 5]]), np.array([[6, 5, 6, 5]])
    assert overlaps(pixel, same) == 1.0  # without the last pixel there would be no area at all
    assert overlaps(pixel, beside) == 0.0
    # 10 of 20 columns are shared, and 11 of 21 once the last one is counted: 11 / 31 against 10 / 30.
    assert overlaps(np.array([[0, 0, 20, 0]]), np.array([[10, 0, 30, 0]])) == pytest.approx(11 / 31)


def test_overlap_of_exactly_a_half_is_not_enough() -> None:
    half, more = np.array([[1, 1, 10, 5]]), np.array([[1, 1, 10, 6]])
    whole, counted = np.array([[1, 1, 10, 10]]), np.array([False])
    assert overlaps(half, whole) == 0.5
    assert match_detections(half, whole, counted).tolist() == [0]
    assert match_detections(more, whole, counted).tolist() == [1]


def test_second_hit_is_wrong() -> None:
    assert average([found(SQUARE, SQUARE)], [truth(SQUARE, AWAY)])["voc_ap"] == pytest.approx(0.5)
    verdicts = match_detections(np.array([SQUARE, SQUARE]), np.array([SQUARE]), np.array([False]))
    assert verdicts.tolist() == [1, 0]


def test_detection_is_compared_with_its_nearest_object_alone() -> None:
    """The second overlaps both by more than a half, and the nearest is taken: COCO would give it the other."""
    truths = [truth((0, 0, 10, 10), (0, 3, 10, 13))]
    said = [found((0, 0, 10, 10), (0, 1, 10, 11))]
    assert average(said, truths)["voc_ap"] == pytest.approx(0.5)
    assert coco_scores(said, truths, 1)[1].value == pytest.approx(1.0, abs=0.01)


def test_difficult_object_is_neither_found_nor_missed() -> None:
    easy, hard = truth(SQUARE), truth(SQUARE, AWAY, difficult=(1,))
    for said in (found(SQUARE), found(SQUARE, AWAY), found(AWAY, SQUARE), found(AWAY, AWAY, SQUARE)):
        assert average([said], [hard])["voc_ap"] == 1.0
    assert average([found(AWAY, SQUARE)], [easy])["voc_ap"] == 0.5  # where it is not an object it is an error
    assert average([found(AWAY)], [hard])["voc_ap"] == 0.0


def test_recall_of_exactly_three_tenths_misses_the_step_of_three_tenths() -> None:
    boxes = [(x, 0.0, x + 9.0, 9.0) for x in range(0, 100, 10)]
    scores = average([found(*boxes[:3])], [truth(*boxes)])
    assert scores["voc_ap11"] == pytest.approx(3 / 11)  # at 0, 0.1 and 0.2; exact tenths would give 4 / 11
    assert scores["voc_ap"] == pytest.approx(0.3)


def test_equal_confidences_stay_in_their_order() -> None:
    equal = (0.5, 0.5)
    assert average([found(SQUARE, AWAY, confidences=equal)], [truth(SQUARE)])["voc_ap"] == 1.0
    assert average([found(AWAY, SQUARE, confidences=equal)], [truth(SQUARE)])["voc_ap"] == 0.5


def test_less_sure_detection_does_not_take_the_object() -> None:
    said = found((10, 10, 30, 26), SQUARE, confidences=(0.2, 0.8))  # in the file the worse comes first
    assert rank_detections([said], [truth(SQUARE)], 1)[0].right.tolist() == [True, False]


def test_classes_do_not_meet_and_one_without_objects_does_not_count() -> None:
    said = Detections(np.array([SQUARE, AWAY]), np.array([0, 1]), np.array([0.9, 0.8]))
    rankings = rank_detections([said], [truth(SQUARE, labels=(0,))], 3)
    assert np.isnan(precisions(rankings, "area")).tolist() == [False, True, True]
    assert voc_scores(rankings)[0].value == 1.0


def test_detections_in_images_without_objects_are_wrong() -> None:
    assert average([found(SQUARE), found(SQUARE)], [truth(), truth(SQUARE)])["voc_ap"] == 0.5
    assert average([found(), found(SQUARE)], [truth(), truth(SQUARE)])["voc_ap"] == 1.0
    assert average([found()], [truth(SQUARE)]) == {"voc_ap11": 0.0, "voc_ap": 0.0}


def test_image_that_counts_twice_is_an_image_that_is_there_twice() -> None:
    generator = np.random.default_rng(0)
    truths, said = [], []
    for _ in range(6):
        corners = generator.integers(0, 60, (3, 2))
        boxes = [(x, y, x + 20.0, y + 20.0) for x, y in corners.tolist()]
        truths.append(truth(*boxes))
        shifted = [tuple(np.array(box) + generator.integers(-6, 7)) for box in boxes]
        said.append(found(*shifted, confidences=tuple(generator.random(3))))
    weights = np.array([2.0, 0.0, 1.0, 1.0, 3.0, 0.0])
    again = [i for i, times in enumerate(weights.astype(int)) for _ in range(times)]
    whole = rank_detections(said, truths, 1)[0]
    repeated = rank_detections([said[i] for i in again], [truths[i] for i in again], 1)[0]
    for rule in ("area", "11 points"):
        assert 0 < whole.precision(rule, weights) < 1
        assert whole.precision(rule, weights) == pytest.approx(repeated.precision(rule))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Detections], list[GroundTruth]]:
    """The shared photographs and one detector's detections."""
    if not SHARED.exists():
        pytest.skip(f"needs {SHARED}")
    root = unpack(tmp_path_factory.mktemp("voc07"))
    said, truths = [], []
    for path in sorted((root / "Annotations").glob("*.xml")):
        known = read_annotation(path)
        boxes = np.array([thing.box for thing in known.objects]).reshape(-1, 4)
        labels = np.array([CLASSES.index(thing.name) for thing in known.objects])
        hard = np.array([thing.difficult for thing in known.objects])
        truths.append(GroundTruth(known.width, known.height, boxes, labels, hard))
        said.append(_detections(root / "detections_abs_xywh" / f"{path.stem}.txt"))
    return said, truths


def _detections(path: Path) -> Detections:
    """Read class, confidence, left, top, width and height; left and top count from 1, as in VOC."""
    rows = np.loadtxt(path).reshape(-1, 6) if path.exists() else np.zeros((0, 6))
    low, size = rows[:, 2:4], rows[:, 4:6]
    return Detections(np.concatenate([low - 1, low + size], axis=1), rows[:, 0].astype(int), rows[:, 1])


def test_real_detections_score_as_published(real) -> None:
    rankings = rank_detections(*real, len(CLASSES))
    scores = {score.metric: score for score in voc_scores(rankings)}
    assert round(scores["voc_ap11"].value, 4) == 0.7249
    assert round(scores["voc_ap"].value, 4) == 0.7171
    assert np.isfinite(precisions(rankings, "area")).sum() == 19
    for score in scores.values():
        assert score.n == 60
        assert 0.5 < score.ci_low < score.value < score.ci_high < 0.9


def test_coco_scores_are_those_of_pycocotools_and_so_are_their_intervals(real, capfd) -> None:
    found, truths = real
    scores = {score.metric: score for score in coco_scores(found, truths, len(CLASSES))}
    evaluation = _evaluate(found, truths, len(CLASSES))
    assert capfd.readouterr().out == ""
    answers = [_answers(evaluation, label, len(truths)) for label in range(len(CLASSES))]
    once = np.ones(len(truths))
    for metric, where in METRICS.items():
        # What the interval is made of, at every image once, is what pycocotools adds up.
        ours = np.nanmean([one.precision(where, evaluation.params.recThrs, once) for one in answers])
        assert ours == pytest.approx(scores[metric].value, abs=1e-9)
        assert scores[metric].ci_low < scores[metric].value < scores[metric].ci_high
    assert scores["coco_ap"].value < scores["coco_ap75"].value < scores["coco_ap50"].value
    assert scores["coco_ap50"].value == pytest.approx(0.7171, abs=0.02)


def test_coco_of_no_detections_is_zero() -> None:
    assert [score.value for score in coco_scores([found()], [truth(SQUARE)], 1)] == [0.0, 0.0, 0.0]


def test_coco_does_not_count_what_lies_in_a_difficult_object() -> None:
    hard = truth(SQUARE, AWAY, difficult=(1,))
    for said in (found(SQUARE), found(AWAY, SQUARE), found(AWAY, AWAY, SQUARE)):
        assert coco_scores([said], [hard], 1)[0].value == pytest.approx(1.0)


def test_missing_pycocotools_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingError, match="pycocotools") as caught:
        coco_scores([found()], [truth(SQUARE)], 1)
    assert "detection" in caught.value.hint


def test_ranking_without_detections_is_zero_and_without_objects_nothing() -> None:
    empty = np.zeros(0)
    assert (
        RankedDetections(empty, empty.astype(bool), empty.astype(int), np.array([1.0])).precision("area")
        == 0.0
    )
    assert np.isnan(
        RankedDetections(empty, empty.astype(bool), empty.astype(int), np.array([0.0])).precision("area")
    )
