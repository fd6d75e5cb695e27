"""Noise by a map: each class has one that it is mistaken for."""

from __future__ import annotations

from curate.errors import RecipeError, reject_unknown
from curate.ops._noise.flips import Flips, Options, weighted
from curate.rows.relation import Rows, class_ids

# Patrini et al. 2017, section 5: mistakes that people make.
NAMED = {
    "cifar10": {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }
}


def asymmetric(options: Options) -> Flips:
    """Turn each class of the map into the one that the map says."""
    rows = options.rows
    pairs = _pairs(options.map)
    true = class_ids(rows, list(pairs), where="map")
    given = class_ids(rows, list(pairs.values()), where="map")
    targets: dict[int, int] = {}
    for old, new in zip(true, given, strict=True):
        name = rows.classes[old].id
        if targets.setdefault(old, new) != new:
            raise RecipeError(
                f"map: {name!r} is mapped twice", hint=f"it is also called {rows.classes[old].name!r}"
            )
        if old == new:
            raise RecipeError(f"map: {name!r} becomes itself", hint="leave it out, and its rows stay")
    return Flips(weighted(rows, dict.fromkeys(targets, 1.0)), lambda hit: apply_map(hit, targets))


def _pairs(named: dict[str, str] | str | None) -> dict[str, str]:
    if named is None:
        raise RecipeError(
            "asymmetric noise needs a `map`", hint="`map: {truck: automobile}`, or a named one: cifar10"
        )
    if isinstance(named, str):
        hint = f"there is {', '.join(NAMED)}, or give {{class: class}}"
        reject_unknown(named, NAMED, f"no map {named!r}", hint=hint)
        return NAMED[named]
    if not named:
        raise RecipeError("the map is empty", hint="name at least one class: `map: {truck: automobile}`")
    return named


def apply_map(hit: Rows, targets: dict[int, int]) -> Rows:
    """Return the rows that are hit under the label that `targets` gives theirs."""
    table = hit.lookup(
        {"_noise_old": ("INTEGER", list(targets)), "_noise_given": ("INTEGER", list(targets.values()))}
    )
    return hit.sql(f"SELECT r.*, _noise_given FROM {hit} r LEFT JOIN {table} ON _noise_from = _noise_old")
