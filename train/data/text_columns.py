"""Columns of texts, in memory or in a mapped file, and the caption choices of each row."""

# N rows, B of them, M texts in all

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.io.files import cache_folder
from train.augment.chance import Chances, stir

MAX_BYTES = 64 << 20  # of a column that is kept in memory
AT_ONCE = 16_384  # rows whose lists are compared with their captions at once
LOOKED_AT = 100_000  # texts, to see whether they repeat themselves


class Texts:
    """Texts by number: in memory where they are few or repeat themselves, else in a mapped file.

    The file is in the cache folder and has no name, so it is gone when nothing uses it any more.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column: pa.Array
        if column.nbytes <= MAX_BYTES:
            self._column = column.combine_chunks()
        elif _repeat(column):
            self._column = column.combine_chunks().dictionary_encode()
        else:
            self._column = _mapped(column)

    def __len__(self) -> int:
        return len(self._column)

    def take(self, rows: np.ndarray) -> list[Any]:
        """Return the texts of rows; None where there is none."""
        return self._column.take(pa.array(rows)).to_pylist()


class CaptionChoices:
    """The texts that each row may be trained with: row n has `counts_N[n]`, from `starts_N[n]` on.

    Args:
        texts: M texts.
        starts_N: int64.
        counts_N: int64; 0 where a row has no text.
    """

    def __init__(self, texts: Texts, starts_N: np.ndarray, counts_N: np.ndarray) -> None:
        self.texts, self.starts_N, self.counts_N = texts, starts_N, counts_N

    def __len__(self) -> int:
        return len(self.starts_N)

    @property
    def most(self) -> int:
        """The texts of the row that has most."""
        return int(self.counts_N.max(initial=0))

    def draw(self, rows_B: np.ndarray, chances_B: Chances, epoch: int) -> list[str | None]:
        """Return one text of each row for one epoch; None where there is none.

        Args:
            rows_B: whole numbers.
            chances_B: the rows' own, as `chances.of_keys` gives them.
            epoch: with the chances alone, decides which text.
        """
        counts_B = self.counts_N[rows_B]
        picks_B = stir(chances_B, epoch, "caption") % np.maximum(counts_B, 1).astype(np.uint64)
        found_B = self.texts.take(np.where(counts_B, self.starts_N[rows_B] + picks_B.astype(np.int64), 0))
        return [text if count else None for text, count in zip(found_B, counts_B.tolist(), strict=True)]

    @classmethod
    def from_captions(cls, captions: pa.ChunkedArray) -> CaptionChoices:
        """Return one text a row: its caption, where it has one."""
        counts_N = captions.is_valid().to_numpy().astype(np.int64)
        return cls(Texts(captions), np.arange(len(captions)), counts_N)

    @classmethod
    def from_lists(cls, lists: pa.ChunkedArray, captions: pa.ChunkedArray) -> CaptionChoices:
        """Return the texts of a row's list, or its caption where the list is empty or absent."""
        valid_chunks = [pc.is_valid(pc.list_flatten(chunk)) for chunk in lists.chunks]
        counts = [
            np.bincount(pc.list_parent_indices(chunk).filter(valid).to_numpy(), minlength=len(chunk))
            for chunk, valid in zip(lists.chunks, valid_chunks, strict=True)
        ]
        counts_N = np.concatenate([np.zeros(0, np.int64), *counts])
        flat = pc.list_flatten(lists).drop_null()
        starts_N = np.cumsum(counts_N) - counts_N
        alone_N = (counts_N == 0) & captions.is_valid().to_numpy()
        spare = captions.filter(pa.array(alone_N)).cast(flat.type)
        starts_N[alone_N] = len(flat) + np.arange(len(spare))
        counts_N[alone_N] = 1
        return cls(Texts(pa.chunked_array([*flat.chunks, *spare.chunks], flat.type)), starts_N, counts_N)

    @classmethod
    def from_classes(cls, texts_of: Sequence[Sequence[str]], labels_N: np.ndarray) -> CaptionChoices:
        """Return for each row the texts of its class."""
        counts_C = np.array([len(texts) for texts in texts_of])
        starts_C = np.cumsum(counts_C) - counts_C
        texts = Texts(pa.chunked_array([[text for texts in texts_of for text in texts]], pa.string()))
        return cls(texts, starts_C[labels_N], counts_C[labels_N])


def count_unlisted_captions(lists: pa.ChunkedArray, captions: pa.ChunkedArray) -> int:
    """Return how many rows have a list of texts and a caption that is none of them."""
    count = 0
    for start in range(0, len(lists), AT_ONCE):
        part = lists.slice(start, AT_ONCE).combine_chunks()
        texts, rows = pc.list_flatten(part), pc.list_parent_indices(part)
        own = captions.slice(start, AT_ONCE).combine_chunks().cast(texts.type).take(rows)
        same = pc.fill_null(pc.equal(texts, own), False)
        listed = pc.count_distinct(rows.filter(texts.is_valid())).as_py()
        count += listed - pc.count_distinct(rows.filter(same)).as_py()
    return count


def _repeat(column: pa.ChunkedArray) -> bool:
    """Whether there are few different texts, by the first of them."""
    first = column.slice(0, LOOKED_AT)
    return pc.count_distinct(first).as_py() * 10 < len(first)


def _mapped(column: pa.ChunkedArray) -> pa.Array:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=folder, suffix=".arrow")
    os.close(handle)
    try:
        schema = pa.schema([("text", pa.large_string())])
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            whole = column.cast(pa.large_string()).combine_chunks()
            writer.write_batch(pa.record_batch([whole], schema=schema))
        return pa.ipc.open_file(pa.memory_map(path)).get_batch(0).column(0)
    finally:
        os.unlink(path)
