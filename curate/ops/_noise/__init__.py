"""The kinds of label noise: each says which rows it may make wrong, and what they are called then.

A kind is a function from rows and options to `Flips`. A new one goes into the module that it resembles, into
`KINDS` with the options that only it takes, and into the type of `kind` in `curate/ops/noise.py`.
"""

from collections.abc import Callable
from typing import NamedTuple

from curate.ops._noise.asymmetric import asymmetric
from curate.ops._noise.confusion import confusion
from curate.ops._noise.flips import Flips, Options
from curate.ops._noise.neighbours import hierarchy, sibling
from curate.ops._noise.uniform import instance, pair, symmetric, symmetric_inclusive


class Kind(NamedTuple):
    """A kind of noise.

    Args:
        flips: what it does.
        options: the options that it takes besides `rate` and `per`.
    """

    flips: Callable[[Options], Flips]
    options: tuple[str, ...] = ()


KINDS = {
    "symmetric": Kind(symmetric),
    "symmetric_inclusive": Kind(symmetric_inclusive),
    "pair": Kind(pair),
    "asymmetric": Kind(asymmetric, ("map",)),
    "sibling": Kind(sibling, ("parents",)),
    "hierarchy": Kind(hierarchy, ("parents", "temperature")),
    "confusion": Kind(confusion, ("file", "true_label", "given_label")),
    "instance": Kind(instance, ("file",)),
}
__all__ = ["KINDS", "Flips", "Kind", "Options"]
