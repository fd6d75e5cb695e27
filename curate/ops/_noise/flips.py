"""What a kind of noise gets and says, and how the rows that become wrong are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from curate.errors import RecipeError
from curate.ops._noise.alias_sampling import unit_sql
from curate.rows.chance import chance_sql
from curate.rows.first_rows import mark_first_rows
from curate.rows.relation import Rows

Per = Literal["overall", "class"]
# A rate as a whole number, so that a sum of rates does not depend on the order of the rows.
UNIT = 10**12


@dataclass(frozen=True)
class Options:
    """What a recipe says of a noise, for the kind to read.

    Args:
        rows: the rows, whose `label` is true.
        seed: for the chance of every decision.
        map, parents, temperature, file, true_label, given_label: as `noise` documents them; None where not given.
    """

    rows: Rows
    seed: int
    map: dict[str, str] | str | None = None
    parents: str | None = None
    temperature: float | None = None
    file: str | None = None
    true_label: str | None = None
    given_label: str | None = None


@dataclass(frozen=True)
class Flips:
    """Which rows a kind of noise may make wrong, and what it makes of them.

    Args:
        rows: the rows. Where they have a column `_noise_weight`, a row is as likely to become wrong as this
            says, and never where it is NULL or 0.
        give: takes rows with `_noise_from` (the label of a row that becomes wrong, else NULL) and returns them
            with `_noise_given` (its new label).
        own: the weights are rates, which hold where the recipe gives none: overall or in each class.
    """

    rows: Rows
    give: Callable[[Rows], Rows]
    own: Per | None = None


def weighted(rows: Rows, weights: Mapping[int, float]) -> Rows:
    """Return the rows with the weight of their class as `_noise_weight`; NULL for the other classes.

    Raises:
        RecipeError: no class has a weight.
    """
    if not any(weights.values()):
        raise RecipeError(f"none of the {len(rows.classes)} classes can become another by this noise")
    table = rows.lookup(
        {"_noise_label": ("INTEGER", list(weights)), "_noise_weight": ("DOUBLE", list(weights.values()))}
    )
    return rows.sql(
        f"SELECT r.*, _noise_weight FROM {rows} r "
        f"LEFT JOIN (SELECT _noise_label, _noise_weight FROM {table}) ON label = _noise_label"
    )


def hits(flips: Flips, rate: float | None, per: Per, seed: int) -> Rows:
    """Return the rows with `_noise_from`: the label of those that become wrong, NULL for the others.

    Rows are wrong in the order of chance divided by weight (sequential Poisson sampling, Ohlsson 1998): the count
    is exact, and what is wrong at one rate is wrong at every higher one.

    Raises:
        RecipeError: no rate is given, and the kind has none of its own.
    """
    if rate is None and flips.own is None:
        raise RecipeError("option 'rate' is missing", hint="the share of the labelled rows: `rate: 0.2`")
    has_weights = "_noise_weight" in flips.rows.columns
    able = "label IS NOT NULL" + (" AND _noise_weight > 0" if has_weights else "")
    group = "label" if per == "class" or (rate is None and flips.own == "class") else "0"
    # Where all weights are alike the order is that of the whole numbers, which have more bits.
    order = f"{unit_sql(seed, 'noise/hit')} / _noise_weight" if has_weights else chance_sql(seed, "noise/hit")
    total = f"sum(round(_noise_weight * {UNIT})::HUGEINT)" if rate is None else "0"
    groups = flips.rows.con.execute(
        f"SELECT {group} AS g, count(*), {total} FROM {flips.rows} WHERE {able} GROUP BY g"
    ).fetchall()
    wanted = {
        g: (int(owed) + UNIT // 2) // UNIT if rate is None else int(count * rate + 0.5)
        for g, count, owed in groups
    }
    able_rows = sum(count for _, count, _ in groups)
    labelled = flips.rows.scalar(f"SELECT count(label) FROM {flips.rows}") if has_weights else able_rows
    marked = mark_first_rows(
        flips.rows, "_noise_hit", order=f"CASE WHEN {able} THEN {order} END", wanted=wanted, group=group
    )
    if able_rows < labelled:
        share = f"{able_rows:,} of {labelled:,} labelled rows"
        marked = marked.noted(f"the rate is of {share}: the others' classes can become no other")
    return marked.sql(f"SELECT *, CASE WHEN _noise_hit THEN label END AS _noise_from FROM {marked}")
