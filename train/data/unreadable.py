"""The samples of a run that could not be read: counted, named, and too many at some point."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from curate.errors import DataError, require
from train.data.text_columns import Texts


class Broken:
    """Which rows could not be read, and why.

    Args:
        where: the dataset, for messages.
        keys: of all rows.
        max_fraction: share of the rows that may be broken before it is an error.
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

    def note(self, reasons: Mapping[int, str]) -> None:
        """Remember rows that could not be read.

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
