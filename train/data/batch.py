"""A batch: what a loader and a stream of tars give to whoever trains or measures."""

# B samples of a batch, V views of each, T side of an image in pixels

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import Tensor

from train.augment.chance import Chances
from train.data.text_columns import Texts


class SampleTexts(Protocol):
    """Keys and captions of samples, by row."""

    @property
    def keys(self) -> Texts: ...

    @property
    def captions(self) -> Texts: ...


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Args:
        views: V of B3TT, uint8, 0..255.
        labels: B, int64; -1 for none.
        rows: B, whole numbers: the samples' numbers in the loader.
        chances: B, the samples' chances. They and the epoch decide everything that is random about a sample.
        epoch: the epoch of the batch.
        fingerprint: a number for which sample stands where in the run; see `chance.fingerprint`.
    """

    views: tuple[Tensor, ...]
    labels: Tensor
    rows: np.ndarray
    chances: Chances
    epoch: int
    fingerprint: int
    _texts: SampleTexts = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> Tensor:
        """The first view, or the only one: B3TT, uint8, 0..255."""
        return self.views[0]

    @property
    def keys(self) -> list[str]:
        """The samples' keys."""
        return self._texts.keys.take(self.rows)

    @property
    def captions(self) -> list[str | None]:
        """The samples' captions; None where there is none."""
        return self._texts.captions.take(self.rows)
