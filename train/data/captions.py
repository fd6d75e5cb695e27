"""The captions of samples: which texts each may be trained with, and whether they can teach anything."""

# N rows, B samples of a step, C classes

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from curate.captions.prompts import class_names
from curate.captions.templates import texts
from curate.captions.texts import CLEAN, LIST
from curate.datasets.dataset import Dataset, StepRecord
from curate.errors import DataError, RecipeError
from train.augment.chance import Chances
from train.data.text_columns import CaptionChoices, count_unlisted_captions

LOOKED_AT = 100_000  # captions, to see what they are like
FIXED = "`--captions fixed` learns from `caption` alone"  # the way out where lists are wrong
FEW_DOUBLES = 0.1  # equal captions in its batch that a caption may meet without a word


def caption_step(dataset: Dataset) -> StepRecord | None:
    """Return the recipe's last step that made captions from class names."""
    steps = [step for step in dataset.info.ledger if step.step == "caption"]
    return steps[-1] if steps else None


def caption_arguments(dataset: Dataset) -> dict[str, Any] | None:
    """Return the arguments of that step (`templates`, `names`); None where there is none."""
    step = caption_step(dataset)
    return step.arguments if step else None


def class_texts(dataset: Dataset) -> list[list[str]] | None:
    """Return the texts that templates make of each class, in label order; None where captions are not so made.

    The recipe's last `caption` step, as `dataset.json` has it, says which templates and names. So a row needs no list
    of its 80 texts, which for 1.28 M rows would be 7 GB.
    """
    step = caption_step(dataset)
    if step is None:
        return None
    try:
        names_C = class_names(dataset.classes, step.arguments.get("names", "lemma"))
        templates = texts(step.arguments["templates"])
    except (KeyError, RecipeError):
        return None  # the classes were merged since, into such as have no name of this kind
    return [[text.replace("{}", name) for text in templates for name in names] for names in names_C]


def choices_of_rows(
    dataset: Dataset, captions: pa.ChunkedArray, labels_N: np.ndarray, lists: pa.ChunkedArray | None
) -> CaptionChoices:
    """Return the texts of each row: its list, else those of its class, else its caption alone.

    Those of its class count only where no text was spoilt and every caption is one of them: not after noise in the
    labels or the texts.

    Raises:
        DataError: `captions` is no list of texts, or has rows whose caption is none of their list.
    """
    if lists is not None:
        _check_lists(dataset, lists, captions)
        return CaptionChoices.from_lists(lists, captions)
    if CLEAN["caption"] in dataset.info.columns:
        return CaptionChoices.from_captions(captions)
    texts_C = class_texts(dataset)
    if texts_C is None or (labels_N < 0).any() or (labels_N >= len(texts_C)).any():
        return CaptionChoices.from_captions(captions)
    distinct = pa.table({"label": labels_N, "caption": captions}).group_by(["label", "caption"]).aggregate([])
    allowed = [set(texts) for texts in texts_C]
    pairs = zip(distinct["label"].to_pylist(), distinct["caption"].to_pylist(), strict=True)
    if all(caption in allowed[label] for label, caption in pairs):
        return CaptionChoices.from_classes(texts_C, labels_N)
    return CaptionChoices.from_captions(captions)


def caption_warnings(choices: CaptionChoices, chances_N: Chances, batch_size: int, where: str) -> list[str]:
    """Return warnings about captions.

    Args:
        choices: the texts of the rows.
        chances_N: the rows' own.
        batch_size: B, over all processes.
        where: the dataset, for messages.

    Raises:
        DataError: rows have none, or all are empty.
    """
    count = len(choices)
    absent = int((choices.counts_N == 0).sum())
    if absent:
        raise DataError(
            f"{where}: {absent:,} of {count:,} rows have no caption",
            hint="`caption` in the recipe writes them from class names, `where: caption IS NOT NULL` drops such "
            "rows; supervised and simclr need none",
        )
    rows = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))
    drawn = [text or "" for text in choices.draw(rows, chances_N[rows], 0)]
    empty = sum(not text.strip() for text in drawn)
    if empty == len(drawn):
        raise DataError(f"{where}: all captions are empty", hint="`caption` in the recipe writes some")
    warnings = []
    if empty:
        warnings.append(
            f"{empty / len(drawn):.1%} of the captions are empty: `where: caption <> ''` drops them"
        )
    doubles = _doubles(drawn, batch_size)
    if doubles is None:
        warnings.append("all captions are equal: images cannot be told apart by them, and nothing is learned")
    elif doubles > FEW_DOUBLES:
        warnings.append(
            f"a caption meets {doubles:.2g} equal ones in a batch of {batch_size}, and the loss takes each for wrong: "
            f"more classes, more templates or a smaller batch make them fewer"
        )
    return warnings


def _doubles(texts: list[str], batch_size: int) -> float | None:
    """Return the expected number of equal texts that a text meets in its batch; None where all are equal."""
    pairs = len(texts) * (len(texts) - 1)
    equal = sum(count * (count - 1) for count in Counter(texts).values())
    if equal == pairs and pairs:
        return None
    return (batch_size - 1) * equal / max(1, pairs)


def _check_lists(dataset: Dataset, lists: pa.ChunkedArray, captions: pa.ChunkedArray) -> None:
    """Refuse lists of other values than texts, and lists that were not updated when the captions changed."""
    kind = lists.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (listed and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type))):
        raise DataError(
            f"{dataset.path}: the column {LIST!r} is {kind}, and no list of texts",
            hint=f"{FIXED}; or build it with `compute: {{columns: {{captions: …}}}}`, which makes a list of it",
        )
    unlisted = count_unlisted_captions(lists, captions)
    if unlisted:
        raise DataError(
            f"{dataset.path}: {unlisted:,} of {len(lists):,} rows have a caption that is none of their {LIST!r}",
            hint=f"{FIXED}; or build it again, so that the two agree",
        )
