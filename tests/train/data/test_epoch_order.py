"""The order of samples: ranks, the end of an epoch, blocks, and the proof that two runs saw the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from handmade import pictures

from curate.datasets.dataset import Dataset
from curate.errors import RecipeError
from train.data import epoch_order
from train.data.batch import Batch
from train.data.epoch_order import BlockOrder, ShuffledOrder
from train.data.loader import Loader

MakeDataset = Callable[..., Dataset]


def loader(dataset: Dataset, **options) -> Loader:
    standard = {"batch_size": 8, "image_size": 16, "seed": 0, "augment": True, "workers": 0, "cache": "none"}
    return Loader(dataset, **{**standard, **options})


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def woven(parts: list[Batch]) -> list[str]:
    """Return the keys of one step in their order in the whole batch, from those of each rank."""
    longest = max(map(len, parts))
    return [part.keys[i] for i in range(longest) for part in parts if i < len(part)]


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_ranks_together_see_what_one_process_alone_sees(
    dataset: MakeDataset, ranks: int, drop_last: bool, cache: str
) -> None:
    data = dataset(pictures(21))
    alone = list(loader(data, drop_last=drop_last, cache=cache).epoch(2))
    each = [
        list(loader(data, drop_last=drop_last, cache=cache, rank=r, world_size=ranks).epoch(2))
        for r in range(ranks)
    ]
    assert alone
    assert {len(batches) for batches in each} == {len(alone)}  # else some rank would wait for ever
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in each]
        assert woven(parts) == whole.keys
        images = {key: image for part in parts for key, image in zip(part.keys, part.images, strict=True)}
        assert all(torch.equal(images[k], image) for k, image in zip(whole.keys, whole.images, strict=True))
        assert sum(part.fingerprint for part in parts) % 2**64 == whole.fingerprint


def test_the_last_samples_are_kept_or_dropped(dataset: MakeDataset) -> None:
    data = dataset(pictures(21))
    assert [len(batch) for batch in loader(data).epoch(0)] == [8, 8, 5]
    assert [len(batch) for batch in loader(data, drop_last=True).epoch(0)] == [8, 8]
    parts = [list(loader(data, rank=r, world_size=4, batch_size=20).epoch(0)) for r in range(4)]
    assert [[len(batch) for batch in part] for part in parts] == [[5, 1], [5, 0], [5, 0], [5, 0]]
    assert parts[1][1].images.shape == (0, 3, 16, 16)


@pytest.mark.parametrize("options", [{"rank": 2, "world_size": 2}, {"rank": 0, "world_size": 3}])
def test_ranks_that_cannot_share_a_batch_are_refused(dataset: MakeDataset, options: dict) -> None:
    with pytest.raises(RecipeError, match="batches of 8"):
        loader(dataset(pictures(9)), **options)


def test_a_run_goes_on_from_any_step_with_other_workers_and_ranks(dataset: MakeDataset) -> None:
    data = dataset(pictures(21))

    def run(steps: range, **options) -> list[list[str]]:
        ranks = options.get("world_size", 1)
        parts = [loader(data, **options, **({"rank": r} if ranks > 1 else {})) for r in range(ranks)]
        batches = [part.batches(steps.start) for part in parts]
        seen = [woven([next(one) for one in batches]) for _ in steps]
        for one, part in zip(batches, parts, strict=True):
            one.close()
            part.close()
        return seen

    whole = run(range(9), drop_last=True)
    assert len({key for step in whole[:2] for key in step}) == 16
    assert run(range(3, 9), drop_last=True, workers=2) == whole[3:]
    assert run(range(5, 9), drop_last=True, workers=1, world_size=2) == whole[5:]


def test_the_fingerprint_tells_runs_apart_that_saw_others_or_another_order(
    dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_order, "BLOCK_SAMPLES", 4)
    monkeypatch.setattr(epoch_order, "WINDOW_BLOCKS", 2)
    data = dataset(pictures(24))

    def total(steps: int, **options) -> int:
        one = loader(data, **options)
        batches = one.batches()
        return sum(next(batches).fingerprint for _ in range(steps)) % 2**64

    assert total(6) == total(6, workers=2) == total(6, cache="memory")
    assert total(3, batch_size=8) == total(2, batch_size=12)  # the same samples at the same places
    others = {total(6), total(5), total(6, seed=1), total(6, order="manifest")}
    assert len(others | {total(6, order="blocks")}) == 5


def test_blocks_keep_neighbours_near_and_miss_nobody() -> None:
    order = BlockOrder(numbers(1003), block_samples=10, window_blocks=4)
    for epoch in range(3):
        rows = order.rows(epoch)
        assert sorted(rows.tolist()) == list(range(1003))
        for start in range(0, 1003, 40):
            blocks = {row // 10 for row in rows[start : start + 40].tolist()}
            assert len(blocks) <= 6  # four, and two cut in half where the short block came before
    first, second = order.rows(0), order.rows(1)
    assert (first != second).mean() > 0.9
    assert [r // 10 for r in first[:40:10].tolist()] != [0, 1, 2, 3]
    assert (np.diff(first[:40]) == 1).mean() < 0.3  # shuffled within the window


def test_an_order_of_a_million_is_a_permutation_and_quick() -> None:
    rows = ShuffledOrder(numbers(1_000_000)).rows(0)
    assert np.array_equal(np.sort(rows), np.arange(1_000_000))
    assert rows.dtype == np.uint32
