"""The fields of a recipe that are mappings of their own: `expect` and `resize`."""

from __future__ import annotations

from pydantic import Field

from curate.recipes.signatures import Fraction, Strict

RESIZE_VERSION = 2  # goes up when the same images become others


class Span(Strict):
    """A smallest and a largest value, both allowed."""

    min: int = 0
    max: int = 2**62


class Expect(Strict):
    """What a recipe promises; checked before anything is published."""

    rows: int | None = None
    classes: int | None = None
    per_class: int | Span | None = None
    noise_rate: Fraction | None = None
    captions: bool | None = None


class Resize(Strict):
    """Shrink images at build time: the only step that encodes anything again.

    Args:
        short: pixels of the short side; larger images are scaled down to it, others keep their bytes.
        quality: of the JPEGs that are written.
    """

    short: int = Field(ge=1, lt=2**31)
    quality: int = Field(default=90, ge=1, le=95)
