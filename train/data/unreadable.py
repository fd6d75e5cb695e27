"""The samples of a run that cannot be read: counted, named, replaced, and too many at some point."""

# B samples of a batch, L places of an epoch

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from curate.errors import DataError, require
from train.data.batch_sampler import BatchRows, RowsOfEpoch
from train.data.text_columns import Texts


class Unreadable:
    """Which rows cannot be read, and why.

    Args:
        where: the dataset, for messages.
        keys: of all rows.
        max_fraction: share of the rows that may be unreadable before it is an error.
    """

    def __init__(self, where: str, keys: Texts, max_fraction: float) -> None:
        require(0 <= max_fraction <= 1, "max_broken_fraction", max_fraction, "a share, in [0, 1]")
        self.where = where
        self.max_fraction = max_fraction
        self.reasons: dict[str, str] = {}  # by key
        self.by_row: dict[int, str] = {}
        self._keys = keys

    def __len__(self) -> int:
        return len(self.by_row)

    def __contains__(self, row: int) -> bool:
        return row in self.by_row

    def among(self, rows_B: np.ndarray) -> dict[int, str]:
        """Return the reasons of those of some rows that are known to be unreadable, by their place among them."""
        if not self.by_row:
            return {}
        return {i: self.by_row[row] for i, row in enumerate(rows_B.tolist()) if row in self}

    def note(self, reasons: Mapping[int, str]) -> None:
        """Remember rows that cannot be read.

        Raises:
            DataError: there are too many now.
        """
        if not reasons:
            return
        self.by_row |= reasons
        keys = self._keys.take(np.array(list(reasons)))
        self.reasons |= dict(zip(keys, reasons.values(), strict=True))
        share = len(self) / len(self._keys)
        if share > self.max_fraction:
            examples = "".join(f"\n  {key}: {self.reasons[key]}" for key in sorted(self.reasons)[:3])
            raise DataError(
                f"{self.where}: {len(self)} of {len(self._keys)} images cannot be read so far "
                f"({share:.1%}, {self.max_fraction:.1%} may be){examples}",
                hint=f"`curate verify {self.where}` lists them all",
            )

    def replaced(
        self,
        step: BatchRows,
        places: Mapping[int, str],
        images_B: np.ndarray | None,
        fill: Callable[[np.ndarray, RowsOfEpoch], dict[int, str]],
    ) -> np.ndarray:
        """Return the rows of a batch with the next readable row of the epoch in each unreadable one's place.

        Args:
            step: the batch.
            places: of the unreadable samples in the batch.
            images_B: where the images of the new rows go; None where the images of all rows are there already.
            fill: makes the image of a row, or returns why it cannot.

        Raises:
            DataError: no image can be read, or too many cannot.
        """

        def is_readable(row: int, i: int) -> bool:
            if row in self:
                return False
            if images_B is None:
                return True
            reasons = fill(images_B[i : i + 1], RowsOfEpoch(np.array([row]), step.epoch))
            if reasons:
                self.note({row: reasons[0]})
            return not reasons

        rows_B, order_L = step.part().rows.copy(), step.order
        for i in places:
            behind = (int(order_L[(step.places[i] + n) % len(order_L)]) for n in range(1, len(order_L)))
            row = next((row for row in behind if is_readable(row, i)), None)
            if row is None:
                raise DataError(f"{self.where}: no image can be read", hint="is this the right pool?")
            rows_B[i] = row
        return rows_B
