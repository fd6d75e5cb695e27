"""Noise that knows no more of the classes than their number: steps around the circle of labels."""

from __future__ import annotations

from curate.ops._noise.flips import Flips, Options
from curate.rows.chance import chance_sql
from curate.rows.relation import Rows


def symmetric(options: Options) -> Flips:
    """Any other class alike: a step of 1..classes-1 around the circle never comes back to the start."""
    others = max(len(options.rows.classes) - 1, 1)
    return _stepping(options, f"({chance_sql(options.seed, 'noise/target')} % {others})::INTEGER + 1")


def symmetric_inclusive(options: Options) -> Flips:
    """Any class alike, the true one too."""
    classes = max(len(options.rows.classes), 1)
    return _stepping(options, f"({chance_sql(options.seed, 'noise/target')} % {classes})::INTEGER")


def pair(options: Options) -> Flips:
    """The next class; the first follows the last."""
    return _stepping(options, "1")


def _stepping(options: Options, step: str) -> Flips:
    return Flips(options.rows, lambda hit: stepped(hit, step))


def stepped(hit: Rows, step: str) -> Rows:
    """Return the rows that are hit so many labels further."""
    to = f"((noise_from + {step}) % {max(len(hit.classes), 1)})::INTEGER"
    return hit.sql(f"SELECT *, CASE WHEN noise_from IS NOT NULL THEN {to} END AS noise_given FROM {hit}")
