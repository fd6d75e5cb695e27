"""Who is drawn, and who is held out to choose by."""

from __future__ import annotations

import numpy as np
import pytest

from curate.errors import RecipeError
from train.transfer.shots import draw, folds, parse_shots

# 30 images of class 0, 12 of class 1, 3 of class 2, 1 of class 3
LABELS = np.repeat([0, 1, 2, 3], [30, 12, 3, 1])
KEYS = [f"c{label}/{i}" for i, label in enumerate(LABELS)]


def test_draw_holds_exactly_k_of_each_class_or_all_it_has() -> None:
    for shots, sizes, short in [(1, [1, 1, 1, 1], 0), (5, [5, 5, 3, 1], 2), (12, [12, 12, 3, 1], 2)]:
        drawn = draw(KEYS, LABELS, shots, seed=0)
        assert np.bincount(drawn.targets).tolist() == sizes
        assert drawn.short_classes == short


def test_draw_names_distinct_images_with_their_own_labels() -> None:
    drawn = draw(KEYS, LABELS, 5, seed=0)
    assert len(drawn) == 14
    assert len(set(drawn.keys)) == 14
    assert [KEYS[row] for row in drawn.rows] == list(drawn.keys)
    assert all(key.startswith(f"c{label}/") for key, label in zip(drawn.keys, drawn.targets, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_smaller_draw_is_inside_the_larger(seed: int) -> None:
    smaller, middle, larger = (set(draw(KEYS, LABELS, shots, seed).keys) for shots in (1, 5, 10))
    assert len(smaller) == 4
    assert smaller < middle < larger


def test_full_draw_is_everything() -> None:
    drawn = draw(KEYS, LABELS, "full", seed=3)
    assert drawn.keys == tuple(KEYS)
    assert drawn.short_classes == 0


def test_seeds_draw_different_images_equally_often() -> None:
    counts = np.zeros(len(KEYS))
    for seed in range(600):
        counts[draw(KEYS, LABELS, 3, seed).rows] += 1
    # 3 of 30: mean 60 over 600 seeds, standard deviation 7.3; the furthest of 30 stays within 4.5 of these
    assert abs(counts[:30] - 60).max() < 33
    assert counts[:30].sum() == 1800


def test_order_of_the_images_changes_nothing() -> None:
    order = np.random.default_rng(0).permutation(len(KEYS))
    mixed = draw([KEYS[i] for i in order], LABELS[order], 5, seed=1)
    assert set(mixed.keys) == set(draw(KEYS, LABELS, 5, seed=1).keys)


def test_more_images_of_one_class_change_no_other() -> None:
    more = draw([*KEYS, "c2/new"], np.append(LABELS, 2), 2, seed=0)
    before = draw(KEYS, LABELS, 2, seed=0)
    others = [key for key in before.keys if not key.startswith("c2/")]
    assert len(others) == 5
    assert set(others) <= set(more.keys)


def test_folds_hold_out_every_image_once_but_the_only_one_of_a_class() -> None:
    drawn = draw(KEYS, LABELS, 10, seed=0)
    cut = folds(drawn, count=5)
    assert len(cut) == 5
    held = np.concatenate([fold.choose for fold in cut])
    assert len(held) == len(set(held)) == len(drawn) - 1
    assert set(drawn.targets[held]) == {0, 1, 2}


@pytest.mark.parametrize("shots", [2, 3, 5, 10, "full"])
def test_every_fold_fits_on_every_class_and_keeps_apart_what_it_chooses_by(shots) -> None:
    drawn = draw(KEYS, LABELS, shots, seed=0)
    cut = folds(drawn, count=5)
    assert cut
    for fold in cut:
        assert set(drawn.targets[fold.fit]) == {0, 1, 2, 3}
        assert not set(fold.fit) & set(fold.choose)
        assert len(fold.fit) + len(fold.choose) == len(drawn)


def test_first_fold_has_each_class_that_can_spare_one() -> None:
    drawn = draw(KEYS, LABELS, 10, seed=0)
    first = folds(drawn, count=5)[0]
    assert np.bincount(drawn.targets[first.choose]).tolist() == [2, 2, 1]


def test_one_shot_leaves_nothing_to_choose_by() -> None:
    assert folds(draw(KEYS, LABELS, 1, seed=0), count=5) == []


def test_shots_are_read_from_numbers_and_words_and_said_once() -> None:
    assert parse_shots([1, "5", "full", 5]) == [1, 5, "full"]


@pytest.mark.parametrize("wrong", [0, -1, "ten", 1.5, True, None, "", "1,5"])
def test_shots_that_are_no_number_of_images_are_refused(wrong) -> None:
    with pytest.raises(RecipeError, match="no number of images a class"):
        parse_shots([1, wrong])


def test_no_shots_at_all_are_refused() -> None:
    with pytest.raises(RecipeError, match="no shots given"):
        parse_shots([])
