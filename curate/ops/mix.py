"""Draw from several sources in stated amounts."""

from typing import Annotated

from pydantic import Field

from curate.errors import DataError, RecipeError, reject_unknown
from curate.ops import op
from curate.recipes.signatures import ClassName, Count, Seed
from curate.rows.chance import chance_sql
from curate.rows.first_rows import draw_first_rows
from curate.rows.relation import Rows
from curate.rows.sql import quoted, text

Share = Annotated[float, Field(gt=0, le=1)]


@op(version=1, streams=True)
def mix(
    rows: Rows,
    *,
    counts: dict[ClassName, Count] | None = None,
    shares: dict[ClassName, Share] | None = None,
    number: Count | None = None,
    by: str = "source",
    seed: Seed,
) -> Rows:
    """Draw exactly so many rows, or such shares of a total, of each source.

    The rows come from `source: {union: …}`, whose column `source` says where each is from. Draws nest: with one
    seed and the same shares, a smaller mix is inside the larger one. Sources that are not named are dropped.

    Args:
        counts: source → rows.
        shares: source → share instead; together 1.
        number: the total to share out (the rounding goes to the largest remainders); without it, the largest
            total that the sources have rows for.
        by: the column that tells sources apart.

    Example:
        mix: {shares: {web: 0.75, book: 0.25}, number: 4}

    Source: Nguyen et al. 2022 (Quality Not Quantity), https://arxiv.org/abs/2208.05516, section 4.
    """
    if (counts is None) == (shares is None) or (counts is not None and number is not None):
        raise RecipeError("mix takes either `counts`, or `shares` with or without `number`")
    if shares is not None and abs(sum(shares.values()) - 1) > 1e-9:
        raise RecipeError(f"shares: they must add up to 1, not to {sum(shares.values()):g}")
    rows.require(by, hint="`source: {union: …}` gives it")
    column = quoted(by)
    # Of a table's rows some may say the same; where a total is to be found, they count once.
    each = "count(DISTINCT key)" if rows.streamed and counts is None and number is None else "count(*)"
    available = dict(rows.con.execute(f"SELECT {column}::VARCHAR, {each} FROM {rows} GROUP BY 1").fetchall())
    wanted = counts if counts is not None else _shared_out(shares or {}, number, available)
    if not rows.planning:
        _refuse_short(wanted, available, by)
    places = {part: place for place, part in enumerate(wanted, start=1)}
    some = draw_first_rows(
        rows,
        chance=chance_sql(seed, "mix"),
        wanted={places[part]: count for part, count in wanted.items()},
        sizes={places[part]: available.get(part, 0) for part in wanted},
        group=f"list_position([{', '.join(map(text, wanted))}], {column}::VARCHAR)",
    )
    if rows.streamed and not rows.planning and (distinct := some.count()) < sum(wanted.values()):
        hint = "ask for fewer: some rows of a table say again what another says"
        raise DataError(f"{sum(wanted.values()):,} rows wanted, of which {distinct:,} differ", hint=hint)
    return some


def _shared_out(shares: dict[str, float], number: int | None, available: dict[str, int]) -> dict[str, int]:
    """Return how many rows of each source make up a total."""
    total = (
        min(int(available.get(part, 0) / share + 1e-9) for part, share in shares.items())
        if number is None
        else number
    )
    exact = {part: total * share for part, share in shares.items()}
    counts = {part: int(value + 1e-9) for part, value in exact.items()}
    remainders = sorted(shares, key=lambda part: (counts[part] - exact[part], part))
    for part in remainders[: total - sum(counts.values())]:
        counts[part] += 1
    return counts


def _refuse_short(wanted: dict[str, int], available: dict[str, int], by: str) -> None:
    for part, count in wanted.items():
        if not available:
            continue
        reject_unknown(part, sorted(available), f"no rows with {by} {part!r}")
        if available[part] < count:
            raise DataError(f"{count:,} rows of {part!r} wanted of {available[part]:,}", hint="ask for fewer")
