"""Who is drawn, and who is held out to choose by."""

from __future__ import annotations

import numpy as np
import pytest

from curate.errors import RecipeError
from train.transfer.shots import draw_shots, make_folds, parse_shots

# 30 images of class 0, 12 of class 1, 3 of class 2, 1 of class 3
LABELS = np.repeat([0, 1, 2, 3], [30, 12, 3, 1])
KEYS = [f"c{label}/{i}" for i, label in enumerate(LABELS)]
PINNED = ("c0/7", "c0/20", "c1/38", "c1/39", "c2/43", "c2/44", "c3/45")
PINNED_TOTAL = ("c0/12", "c1/34", "c1/38", "c1/40")


def test_draw_holds_exactly_k_of_each_class_or_all_it_has() -> None:
    for shots, sizes, short in [(1, [1, 1, 1, 1], 0), (5, [5, 5, 3, 1], 2), (12, [12, 12, 3, 1], 2)]:
        drawn = draw_shots(KEYS, LABELS, shots, seed=0)
        assert np.bincount(drawn.targets).tolist() == sizes
        assert drawn.short_classes == short


def test_draw_names_distinct_images_with_their_own_labels() -> None:
    drawn = draw_shots(KEYS, LABELS, 5, seed=0)
    assert len(drawn) == 14
    assert len(set(drawn.keys)) == 14
    assert [KEYS[row] for row in drawn.rows] == list(drawn.keys)
    assert all(key.startswith(f"c{label}/") for key, label in zip(drawn.keys, drawn.targets, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_smaller_draw_is_inside_the_larger(seed: int) -> None:
    smaller, middle, larger = (set(draw_shots(KEYS, LABELS, shots, seed).keys) for shots in (1, 5, 10))
    assert len(smaller) == 4
    assert smaller < middle < larger


def test_full_draw_is_everything() -> None:
    drawn = draw_shots(KEYS, LABELS, "full", seed=3)
    assert drawn.keys == tuple(KEYS)
    assert drawn.short_classes == 0


def test_seeds_draw_different_images_equally_often() -> None:
    counts = np.zeros(len(KEYS))
    for seed in range(600):
        counts[draw_shots(KEYS, LABELS, 3, seed).rows] += 1
    # 3 of 30: mean 60 over 600 seeds, standard deviation 7.3; the furthest of 30 stays within 4.5 of these
    assert abs(counts[:30] - 60).max() < 33
    assert counts[:30].sum() == 1800


def test_order_of_the_images_changes_nothing() -> None:
    order = np.random.default_rng(0).permutation(len(KEYS))
    mixed = draw_shots([KEYS[i] for i in order], LABELS[order], 5, seed=1)
    assert set(mixed.keys) == set(draw_shots(KEYS, LABELS, 5, seed=1).keys)


def test_more_images_of_one_class_change_no_other() -> None:
    more = draw_shots([*KEYS, "c2/new"], np.append(LABELS, 2), 2, seed=0)
    before = draw_shots(KEYS, LABELS, 2, seed=0)
    others = [key for key in before.keys if not key.startswith("c2/")]
    assert len(others) == 5
    assert set(others) <= set(more.keys)


def test_folds_hold_out_every_image_once_but_the_only_one_of_a_class() -> None:
    drawn = draw_shots(KEYS, LABELS, 10, seed=0)
    cut = make_folds(drawn, count=5)
    assert len(cut) == 5
    held = np.concatenate([fold.validation for fold in cut])
    assert len(held) == len(set(held)) == len(drawn) - 1
    assert set(drawn.targets[held]) == {0, 1, 2}


@pytest.mark.parametrize("shots", [2, 3, 5, 10, "full"])
def test_every_fold_fits_on_every_class_and_keeps_apart_what_it_chooses_by(shots) -> None:
    drawn = draw_shots(KEYS, LABELS, shots, seed=0)
    cut = make_folds(drawn, count=5)
    assert cut
    for fold in cut:
        assert set(drawn.targets[fold.train]) == {0, 1, 2, 3}
        assert not set(fold.train) & set(fold.validation)
        assert len(fold.train) + len(fold.validation) == len(drawn)


def test_first_fold_has_each_class_that_can_spare_one() -> None:
    drawn = draw_shots(KEYS, LABELS, 10, seed=0)
    first = make_folds(drawn, count=5)[0]
    assert np.bincount(drawn.targets[first.validation]).tolist() == [2, 2, 1]


def test_one_shot_leaves_nothing_to_choose_by() -> None:
    assert make_folds(draw_shots(KEYS, LABELS, 1, seed=0), count=5) == []


def test_shots_are_read_from_numbers_and_words_and_said_once() -> None:
    assert parse_shots([1, "5", "full", 5]) == [1, 5, "full"]


@pytest.mark.parametrize("wrong", [0, -1, "ten", 1.5, True, None, "", "1,5"])
def test_shots_that_are_no_number_of_images_are_refused(wrong) -> None:
    with pytest.raises(RecipeError, match="no number of images a class"):
        parse_shots([1, wrong])


def test_no_shots_at_all_are_refused() -> None:
    with pytest.raises(RecipeError, match="no shots given"):
        parse_shots([])


def test_draws_are_the_same_on_any_machine() -> None:
    """They follow from MD5 alone: these were written down once."""
    assert draw_shots(KEYS, LABELS, 2, seed=0).keys == PINNED
    assert draw_shots(KEYS, LABELS, "total-4", seed=0).keys == PINNED_TOTAL


def test_so_many_in_all_are_drawn_whatever_their_classes_and_nest() -> None:
    smaller, larger = (draw_shots(KEYS, LABELS, f"total-{count}", seed=2) for count in (10, 25))
    assert (len(smaller), len(larger)) == (10, 25)
    assert set(smaller.keys) < set(larger.keys)
    assert len(draw_shots(KEYS, LABELS, "total-1000", seed=2)) == len(KEYS)


def test_vtab_holds_out_two_hundred_of_its_thousand() -> None:
    keys, labels = [f"i{i}" for i in range(3000)], np.arange(3000) % 10
    drawn = draw_shots(keys, labels, "total-1000", seed=0)
    fold = make_folds(drawn, count=5)[0]
    assert abs(len(fold.validation) - 200) <= 10  # an even part of each class
    assert len(fold.train) + len(fold.validation) == 1000


def test_with_replacement_a_small_class_gives_as_many_as_shots_and_says_so() -> None:
    drawn = draw_shots(KEYS, LABELS, 10, seed=0, sampling="replacement")
    assert np.bincount(drawn.targets).tolist() == [10, 10, 10, 10]
    assert (drawn.short_classes, drawn.sampling) == (2, "replacement")
    assert len(set(drawn.keys)) == 40  # one that comes again has a key of its own
    sets = [set(draw_shots(KEYS, LABELS, 5, seed=s, sampling="replacement").rows.tolist()) for s in range(20)]
    of_three = [len(rows & {42, 43, 44}) for rows in sets]
    assert min(of_three) < 3  # some are not drawn at all; 5 draws of 3 miss one with 0.37
    plain = draw_shots(KEYS, LABELS, 3, seed=0)
    for label in (0, 1, 2):  # enough images: nothing changes
        again = draw_shots(KEYS, LABELS, 3, seed=0, sampling="replacement")
        assert again.rows[again.targets == label].tolist() == plain.rows[plain.targets == label].tolist()


def test_image_drawn_twice_is_on_one_side_of_every_fold() -> None:
    drawn = draw_shots(KEYS, LABELS, 10, seed=0, sampling="replacement")
    for fold in make_folds(drawn, count=5):
        assert not set(drawn.rows[fold.train]) & set(drawn.rows[fold.validation])
        assert len(fold.train) + len(fold.validation) == len(drawn)


MANY = (np.random.default_rng(0).random((60, 3)) < [0.5, 0.3, 0.1]).astype(np.int8)
MANY_KEYS = [f"m{i}" for i in range(60)]


def test_draws_of_several_labels_hold_k_images_of_each_class_and_nest() -> None:
    smaller, larger = (draw_shots(MANY_KEYS, MANY, k, seed=0) for k in (2, 4))
    assert set(smaller.rows) < set(larger.rows)
    for drawn, k in ((smaller, 2), (larger, 4)):
        assert (drawn.targets.sum(axis=0) >= np.minimum(k, MANY.sum(axis=0))).all()
        assert len(set(drawn.rows)) == len(drawn) <= 3 * k


def test_folds_of_several_labels_keep_rare_classes_on_both_sides() -> None:
    drawn = draw_shots(MANY_KEYS, MANY, "full", seed=0)
    cut = make_folds(drawn, count=5)
    held = np.concatenate([fold.validation for fold in cut])
    assert len(held) == len(set(held)) == len(drawn)
    assert all(drawn.targets[fold.train].any(axis=0).all() for fold in cut)


def test_labels_that_are_not_counted_are_nobodys_shots() -> None:
    targets = np.array([[1, -1], [1, 0], [-1, 1], [0, 1], [-1, -1]], dtype=np.int8)
    drawn = draw_shots([f"u{i}" for i in range(5)], targets, 5, seed=0)
    assert drawn.rows.tolist() == [0, 1, 2, 3]
    assert drawn.short_classes == 2


def test_image_of_several_labels_is_held_out_with_the_rarest_of_them() -> None:
    targets = np.zeros((20, 2), np.int8)
    targets[:, 0] = 1
    targets[:5, 1] = 1  # the rare label is always beside the common one
    drawn = draw_shots([f"r{i}" for i in range(20)], targets, "full", seed=0)
    for fold in make_folds(drawn, count=5):
        assert drawn.targets[fold.validation, 1].sum() == 1
        assert len(fold.validation) == 4


def test_with_replacement_only_short_classes_repeat_images() -> None:
    drawn = draw_shots(MANY_KEYS, MANY, 2, seed=0, sampling="replacement")
    assert drawn.rows.tolist() == draw_shots(MANY_KEYS, MANY, 2, seed=0).rows.tolist()
    slots = [draw_shots(KEYS, LABELS, 10, seed, sampling="replacement") for seed in range(5)]
    picks = [tuple(d.rows[d.targets == 2] - 42) for d in slots]
    assert len(set(picks)) > 1
