"""Which text a sample is learned with, and what is said of captions that teach little."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from captioned import build_steps, coloured_pool
from hypothesis import given
from hypothesis import strategies as st

from curate.datasets.dataset import Dataset
from curate.errors import DataError
from train.data.captions import caption_warnings, class_texts
from train.data.samples import Samples
from train.data.text_columns import CaptionChoices
from train.models.tokenizer import Tokenizer

TEMPLATES = ["a photo of a {}.", "art of the {}.", "itap of a {}."]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return coloured_pool(tmp_path / "pool")


def samples(dataset: Dataset) -> Samples:
    return Samples(dataset, None, seed=0, need_labels=False)


def drawn(found: Samples, epoch: int) -> list[str | None]:
    rows = np.arange(len(found))
    return found.caption_choices.draw(rows, found.chances_N[rows], epoch)


def test_templates_of_the_recipe_are_drawn_anew_each_epoch(tmp_path: Path, pool: Path) -> None:
    data = build_steps(tmp_path, pool, [{"caption": {"templates": TEMPLATES}}, {"per_class": 10}])
    found = samples(data)
    seen = [drawn(found, epoch) for epoch in range(30)]
    assert drawn(found, 3) == seen[3]
    names = ["tench", "dog", "cat", "car"]
    for row, label in enumerate(found.labels_N.tolist()):
        said = {texts[row] for texts in seen}
        assert said == {template.format(names[label]) for template in TEMPLATES}
    counts = Counter(text.split()[0] for texts in seen for text in texts if text)
    assert all(abs(count - 400) < 5 * 16.3 for count in counts.values())  # of 1,200; five standard deviations


def test_lists_of_the_manifest_say_the_same_as_the_recipe(tmp_path: Path, pool: Path) -> None:
    steps = [{"caption": {"templates": TEMPLATES, "alternatives": True}}]
    lists = build_steps(tmp_path, pool, steps, "lists")
    plain = build_steps(tmp_path, pool, [{"caption": {"templates": TEMPLATES}}], "plain")
    assert "captions" in lists.info.columns
    assert "captions" not in plain.info.columns
    for epoch in range(4):
        assert drawn(samples(lists), epoch) == drawn(samples(plain), epoch)


@pytest.mark.parametrize(
    "step", [{"noise": {"rate": 0.25}}, {"drop_words": {"rate": 0.5}}, {"truncate": {"words": 2}}]
)
def test_templates_are_not_drawn_from_where_captions_were_changed_since(
    tmp_path: Path, pool: Path, step: dict
) -> None:
    data = build_steps(tmp_path, pool, [{"caption": {"templates": TEMPLATES}}, step])
    assert class_texts(data) is not None
    found = samples(data)
    own = found.captions.take(np.arange(len(found)))
    assert [drawn(found, epoch) for epoch in range(5)] == [own] * 5


def test_a_row_without_a_list_has_its_caption() -> None:
    lists = pa.chunked_array(
        [
            pa.array([["a", "b"], [], None], pa.list_(pa.string())),
            pa.array([["c", None]], pa.list_(pa.string())),
        ]
    )
    captions = pa.chunked_array([pa.array(["A", "B", None, "D"])])
    found = CaptionChoices.from_lists(lists, captions)
    assert found.counts_N.tolist() == [2, 1, 0, 1]
    rows = np.arange(4)
    chances = np.arange(4, dtype=np.uint64)
    seen = [found.draw(rows, chances, epoch) for epoch in range(20)]
    assert [{texts[row] for texts in seen} for row in range(4)] == [{"a", "b"}, {"B"}, {None}, {"c"}]


@pytest.mark.parametrize(
    ("captions", "words"),
    [
        (["a cat"] * 10, "all captions are equal"),
        (
            ["a cat", "a dog"] * 5,
            "meets 3.1 equal ones in a batch of 8",
        ),  # 7 others, of each 4 in 9 are equal
        ([*map(str, range(9)), " "], "10.0% of the captions are empty"),
    ],
)
def test_captions_that_teach_little_are_told(captions: list[str], words: str) -> None:
    found = told(captions)
    assert len(found) == 1
    assert words in found[0]


def test_nothing_is_said_of_captions_that_differ() -> None:
    assert told([*map(str, range(400)), "0"]) == []


@pytest.mark.parametrize(
    ("captions", "words"), [(["a", None, None], "2 of 3 rows have no caption"), (["", " "], "are empty")]
)
def test_missing_captions_are_refused_with_what_to_do(captions: list[str | None], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        told(captions)
    assert "caption" in str(caught.value.hint)


def told(captions: Sequence[str | None]) -> list[str]:
    choices = CaptionChoices.from_captions(pa.chunked_array([pa.array(captions, pa.string())]))
    return caption_warnings(choices, np.arange(len(captions), dtype=np.uint64), 8, "set")


@given(st.lists(st.text(max_size=60), min_size=1, max_size=4), st.sampled_from([8, 77]))
def test_tokens_are_those_of_open_clip(texts: list[str], length: int) -> None:
    # The oracle cuts after tokenising, ours as soon as there is enough.
    assert TOKENIZERS[length](texts).tolist() == ORACLE(texts, context_length=length).tolist()


@pytest.mark.parametrize(
    "text",
    ["", "A photo of a CRANE.", "caf\u00e9 &amp; r\u00e9sum\u00e9", "&lt;b&gt;", "a\tb\r\nc", "!!! 12:30pm it's",
     "cat \U0001f408", "<end_of_text> a", "a " * 5000, "the quick brown fox " * 500],
)  # fmt: skip
def test_tokens_of_odd_texts_are_those_of_open_clip(text: str) -> None:
    twice = [text, text]
    assert TOKENIZERS[77](twice).tolist() == ORACLE(twice, context_length=77).tolist()


def test_ten_thousand_letters_without_a_space_take_no_time() -> None:
    text = "".join(chr(97 + i * i * 7 % 26) for i in range(10_000))
    assert TOKENIZERS[77]([text]).shape == (1, 77)


def _tokenizers() -> tuple:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(), {length: Tokenizer(length) for length in (8, 77)}


ORACLE, TOKENIZERS = _tokenizers()
