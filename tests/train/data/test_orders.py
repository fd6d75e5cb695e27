"""Who comes when: ranks, the end of an epoch, blocks, mixtures, and the proof that two runs saw the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from handmade import pictures

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.data.epoch_order import Blocks, Mixture, Shuffled
from train.data.loader import Batch, Loader

MakeDataset = Callable[..., Dataset]


def loader(datasets: Dataset | list[Dataset], **options) -> Loader:
    standard = {"batch_size": 8, "image_size": 16, "seed": 0, "augment": True, "workers": 0, "cache": "none"}
    return Loader(datasets, **{**standard, **options})


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def woven(parts: list[Batch]) -> list[str]:
    """Return the keys of one step in their order in the whole batch, from those of each rank."""
    longest = max(map(len, parts))
    return [part.keys[i] for i in range(longest) for part in parts if i < len(part)]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("last", ["keep", "drop", "pad"])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_ranks_together_see_what_one_process_alone_sees(
    dataset: MakeDataset, ranks: int, last: str, cache: str
) -> None:
    data = dataset(pictures(21))
    alone = list(loader(data, last=last, cache=cache).epoch(2))
    each = [list(loader(data, last=last, cache=cache, rank=r, ranks=ranks).epoch(2)) for r in range(ranks)]
    assert alone
    assert {len(batches) for batches in each} == {len(alone)}  # else some rank would wait for ever
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in each]
        assert woven(parts) == whole.keys
        images = {key: image for part in parts for key, image in zip(part.keys, part.images, strict=True)}
        assert all(torch.equal(images[k], image) for k, image in zip(whole.keys, whole.images, strict=True))
        assert sum(part.fingerprint for part in parts) % 2**64 == whole.fingerprint


def test_the_last_samples_are_kept_dropped_or_filled_up(dataset: MakeDataset) -> None:
    data = dataset(pictures(21))
    sizes = {last: [len(b) for b in loader(data, last=last).epoch(0)] for last in ("keep", "drop", "pad")}
    assert sizes == {"keep": [8, 8, 5], "drop": [8, 8], "pad": [8, 8, 8]}
    padded = [key for batch in loader(data, last="pad").epoch(0) for key in batch.keys]
    assert padded[21:] == padded[:3]
    tiny = loader(dataset(pictures(3), "tiny"), last="pad")
    assert [len(batch) for batch in tiny.epoch(0)] == [8]
    parts = [list(loader(data, rank=r, ranks=4, batch_size=20).epoch(0)) for r in range(4)]
    assert [[len(batch) for batch in part] for part in parts] == [[5, 1], [5, 0], [5, 0], [5, 0]]
    assert parts[1][1].images.shape == (0, 3, 16, 16)


@pytest.mark.parametrize("options", [{"rank": 2, "ranks": 2}, {"rank": 0, "ranks": 3}])
def test_ranks_that_cannot_share_a_batch_are_refused(dataset: MakeDataset, options: dict) -> None:
    with pytest.raises(RecipeError, match="batches of 8"):
        loader(dataset(pictures(9)), **options)


def test_a_run_goes_on_from_any_step_with_other_workers_and_ranks(dataset: MakeDataset) -> None:
    data = dataset(pictures(21))

    def run(steps: range, **options) -> list[list[str]]:
        ranks = options.get("ranks", 1)
        parts = [loader(data, **options, **({"rank": r} if ranks > 1 else {})) for r in range(ranks)]
        batches = [part.batches(steps.start) for part in parts]
        seen = [woven([next(one) for one in batches]) for _ in steps]
        for one, part in zip(batches, parts, strict=True):
            one.close()
            part.close()
        return seen

    whole = run(range(9), last="drop")
    assert len({key for step in whole[:2] for key in step}) == 16
    assert run(range(3, 9), last="drop", workers=2) == whole[3:]
    assert run(range(5, 9), last="drop", workers=1, ranks=2) == whole[5:]


def test_the_fingerprint_tells_runs_apart_that_saw_others_or_another_order(dataset: MakeDataset) -> None:
    data = dataset(pictures(24))

    def total(steps: int, **options) -> int:
        one = loader(data, **options)
        batches = one.batches()
        return sum(next(batches).fingerprint for _ in range(steps)) % 2**64

    assert total(6) == total(6, workers=2) == total(6, cache="memory")
    assert total(3, batch_size=8) == total(2, batch_size=12)  # the same samples at the same places
    others = {total(6), total(5), total(6, seed=1), total(6, order="manifest")}
    assert len(others | {total(6, order="blocks", block_samples=4, window_blocks=2)}) == 5


def test_blocks_keep_neighbours_near_and_miss_nobody() -> None:
    order = Blocks(numbers(1003), block_samples=10, window_blocks=4)
    for epoch in range(3):
        rows = order.turn(epoch).rows
        assert sorted(rows.tolist()) == list(range(1003))
        for start in range(0, 1003, 40):
            blocks = {row // 10 for row in rows[start : start + 40].tolist()}
            assert len(blocks) <= 6  # four, and two cut in half where the short block came before
    first, second = order.turn(0).rows, order.turn(1).rows
    assert (first != second).mean() > 0.9
    assert [r // 10 for r in first[:40:10].tolist()] != [0, 1, 2, 3]
    assert (np.diff(first[:40]) == 1).mean() < 0.3  # shuffled within the window


def test_a_mixture_has_exactly_so_many_of_each_and_none_twice_before_all_once() -> None:
    parts = [numbers(50, 1), numbers(30, 2), numbers(7, 3)]
    order = Mixture(parts, weights=[0.5, 0.3, 0.2], samples=61)
    owner = np.repeat([0, 1, 2], [50, 30, 7])
    seen = Counter()
    for epoch in range(20):
        turn = order.turn(epoch)
        assert Counter(owner[turn.rows].tolist()) == {0: 31, 1: 18, 2: 12}
        seen.update(turn.rows.tolist())
        counts = np.array([seen[i] for i in range(87)])
        for part in range(3):
            assert np.ptp(counts[owner == part]) <= 1
    assert min(seen.values()) >= 12
    firsts = np.flatnonzero(owner[order.turn(0).rows] == 2)
    assert firsts[0] < 15 < 45 < firsts[-1]  # spread over the epoch, not one set after another


def test_a_mixture_by_size_alone_shows_each_sample_once_an_epoch() -> None:
    order = Mixture([numbers(50, 1), numbers(30, 2)], weights=[50, 30], samples=80)
    assert sorted(order.turn(3).rows.tolist()) == list(range(80))


def test_a_sample_that_comes_twice_in_an_epoch_is_cut_twice(dataset: MakeDataset) -> None:
    big, small = dataset(pictures(12), "big"), dataset(pictures(2, split="few"), "small")
    one = loader([big, small], weights=[1, 1], epoch_samples=12, batch_size=12, workers=2)
    (batch,) = one.epoch(0)
    few = [image for key, image in zip(batch.keys, batch.images, strict=True) if key.startswith("few/0000")]
    assert len(few) == 3
    assert not any(torch.equal(few[i], few[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    labels = {s.key: s.label for s in [*pictures(12), *pictures(2, split="few")]}
    assert [labels[key] for key in batch.keys] == batch.labels.tolist()
    one.close()


def test_mixtures_that_make_no_sense_are_refused(dataset: MakeDataset) -> None:
    a, b, other = dataset(pictures(8), "a"), dataset(pictures(8), "b"), dataset(pictures(8), "c", classes=5)
    for wrong, words in (
        ({"weights": [1.0]}, "2 datasets with the weights"),
        ({"weights": [1.0, 0.0]}, "a weight above 0"),
        ({"weights": [1.0, 1e-9]}, "leave none"),
        ({"order": "blocks"}, "only be shuffled"),
    ):
        with pytest.raises(RecipeError) as caught:
            loader([a, b], **wrong)
        assert words in f"{caught.value} {caught.value.hint}"
    with pytest.raises(RecipeError, match="5 classes, not the 4"):
        loader([a, other])
    with pytest.raises(RecipeError, match="with one dataset"):
        loader(a, weights=[1.0])


def test_an_order_of_a_million_is_a_permutation_and_quick() -> None:
    rows = Shuffled(numbers(1_000_000)).turn(0).rows
    assert np.array_equal(np.sort(rows), np.arange(1_000_000))
    assert rows.dtype == np.uint32
