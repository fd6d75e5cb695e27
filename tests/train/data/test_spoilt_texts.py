"""Texts that a recipe spoils are spoilt in what `train clip` learns from, drawn or fixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from captioned import build_steps, coloured_pool

from curate.datasets.dataset import Dataset, open_dataset
from curate.errors import DataError
from train.data.captions import choices_of_rows
from train.data.samples import Samples
from train.data.text_columns import count_unlisted_captions
from train.methods.clip import ClipConfig, train
from train.runs import Run

LISTS = {"caption": {"templates": ["a photo of a {}.", "art of the {} today"], "alternatives": True}}
DRAWN = {"caption": {"templates": ["a {} x", "art of the {}"]}}
SPOILT: list[dict[str, Any]] = [
    {"shuffle_captions": {"rate": 1.0}},
    {"truncate": {"words": 2}},
    {"drop_words": {"rate": 0.5}},
]
SMALL = ClipConfig(
    model="convnet", image_size=8, epochs=1, batch_size=16, workers=0, device="cpu", min_area=1.0,
    embed_dim=32, text_width=32, text_layers=1, context_length=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coloured_pool(tmp_path_factory.mktemp("pools") / "pool")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, pool: Path) -> Dataset:
    """A set whose lists of texts nothing has spoilt."""
    return build_steps(tmp_path_factory.mktemp("clean"), pool, [LISTS])


@pytest.fixture(scope="module")
def clean_run(tmp_path_factory: pytest.TempPathFactory, clean: Dataset) -> Run:
    torch.set_num_threads(1)  # as in each test: sums of floats depend on how they are shared out
    return train(clean, tmp_path_factory.mktemp("runs") / "clean", SMALL, quiet=True)


@pytest.fixture(scope="module")
def plain_texts(tmp_path_factory: pytest.TempPathFactory, pool: Path) -> list[set[str | None]]:
    """What is drawn where nothing spoilt the texts of classes."""
    return learnable(build_steps(tmp_path_factory.mktemp("plain"), pool, [DRAWN]))


def learnable(dataset: Dataset) -> list[set[str | None]]:
    found = Samples(dataset, None, seed=0, need_labels=False)
    rows = np.arange(len(found))
    seen = [found.caption_choices.draw(rows, found.chances_N, epoch) for epoch in range(12)]
    return [{texts[row] for texts in seen} for row in rows]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda step: next(iter(step)))
def test_a_run_on_spoilt_lists_is_another_than_the_clean_one(
    tmp_path: Path, pool: Path, clean: Dataset, clean_run: Run, spoil: dict[str, Any]
) -> None:
    noisy = build_steps(tmp_path, pool, [LISTS, spoil], "noisy")
    assert learnable(clean) != learnable(noisy)
    allowed = [set(texts) for texts in noisy.table(["captions"])["captions"].to_pylist()]
    assert all(seen <= texts for seen, texts in zip(learnable(noisy), allowed, strict=True))
    run = train(noisy, tmp_path / "run", SMALL, quiet=True)
    assert run.digest != clean_run.digest
    assert run.info.metrics["loss"] != clean_run.info.metrics["loss"]


def test_a_run_on_clean_lists_repeats_itself(tmp_path: Path, clean: Dataset, clean_run: Run) -> None:
    again = train(clean, tmp_path / "run", SMALL, quiet=True)
    assert again.digest == clean_run.digest
    assert again.info.metrics["loss"] == clean_run.info.metrics["loss"]


@pytest.mark.parametrize(
    "spoil", [*SPOILT, {"truncate": {"words": 3}}, {"shuffle_captions": {"rate": 0.0}}], ids=str
)
def test_no_text_of_a_class_is_drawn_where_texts_were_spoilt(
    tmp_path: Path, pool: Path, plain_texts: list[set[str | None]], spoil: dict[str, Any]
) -> None:
    data = build_steps(tmp_path, pool, [DRAWN, spoil])
    assert learnable(data) == [{text} for text in data.table(["caption"])["caption"].to_pylist()]
    back = build_steps(tmp_path, pool, [DRAWN, spoil, "clean"], "back")
    assert learnable(back) == plain_texts


def changed(dataset: Dataset, folder: Path, column: str, values: pa.Array) -> Dataset:
    """Copy a set and rewrite a column of it, as nothing of ours does."""
    table = dataset.table()
    place = table.schema.get_field_index(column)
    shutil.copytree(dataset.path, folder)
    pq.write_table(table.set_column(place, column, values), folder / "manifest.parquet")
    return open_dataset(folder)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (pa.array([[{"text": "a"}]] * 48), "is list<.*no list of texts"),
        (pa.array([[1, 2]] * 48), "is list<.*no list of texts"),
        (pa.array(['["a", "b"]'] * 48), "is (large_)?string, and no list of texts"),
        (
            pa.array([["a", "b"]] * 47 + [None]),
            "47 of 48 rows have a caption that is none of their 'captions'",
        ),
    ],
)
def test_lists_that_cannot_be_learned_from_are_refused_before_the_first_step(
    tmp_path: Path, clean: Dataset, lists: pa.Array, words: str
) -> None:
    data = changed(clean, tmp_path / "set", "captions", lists)
    with pytest.raises(DataError, match=words) as caught:
        train(data, tmp_path / "run", SMALL, quiet=True)
    assert "--captions fixed" in str(caught.value.hint)


def test_captions_alone_are_learned_whatever_the_lists_are(
    tmp_path: Path, clean: Dataset, run_curate: Callable[..., Any]
) -> None:
    data = changed(clean, tmp_path / "set", "captions", pa.array([[1]] * 48))
    command = ["train", "clip", data.path, "--model", "convnet", "--image-size", "8", "--text-width", "32"]
    command += [
        "--text-layers",
        "1",
        "--context-length",
        "12",
        "--batch-size",
        "16",
        "--epochs",
        "1",
        "--workers",
        "0",
    ]
    drawn = run_curate(*command, "--out", tmp_path / "drawn")
    assert drawn.exit_code == 3
    assert "no list of texts" in drawn.stderr
    assert run_curate(*command, "--captions", "fixed", "--out", tmp_path / "fixed").exit_code == 0
    assert json.loads((tmp_path / "fixed" / "run.json").read_text())["method"] == "clip"


def test_rows_whose_caption_is_none_of_their_list_are_counted_over_all_chunks() -> None:
    many = 20_000
    lists = pa.chunked_array([[["a", "b"], None, [], [None], ["x", "x"]] * (many // 5)] * 2)
    captions = pa.chunked_array([["b", "b", "b", "b", "y"] * (many // 5)] * 2)
    assert count_unlisted_captions(lists, captions) == 2 * many // 5
    assert count_unlisted_captions(lists, pa.chunked_array([[None] * 2 * many], pa.string())) == 4 * many // 5


def test_lists_of_long_texts_are_lists_of_texts(clean: Dataset) -> None:
    lists = clean.table(["captions"])["captions"].cast(pa.large_list(pa.large_string()))
    captions = clean.table(["caption"])["caption"]
    assert choices_of_rows(clean, captions, np.zeros(48, np.int32), lists).most == 2
