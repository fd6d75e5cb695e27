"""Divide the rows into splits by chance."""

from collections.abc import Mapping

from curate.errors import DataError, RecipeError
from curate.ops import op
from curate.recipes.signatures import ClassName, Count, Fraction, Seed
from curate.rows.quotas import allocate, mark, strata
from curate.rows.relation import Rows
from curate.rows.sql import quoted, text


@op(version=1)
def split(
    rows: Rows,
    *,
    shares: dict[ClassName, Fraction] | None = None,
    images: dict[ClassName, Count] | None = None,
    rest: str = "train",
    seed: Seed,
) -> Rows:
    """Write `split` anew: so large a share of the rows, or so many images of each class, by chance.

    A share is exact over all rows. The part of each class is rounded by the rule of Webster, so the parts
    of two classes of one size differ by one row at most. Draws nest: with one seed, the first split named at 5 %
    is inside itself at 10 %. Rows without a label count as one more class.

    Args:
        shares: split → share of the rows, in [0, 1]; with `rest` among them they add up to 1, else to less.
        images: split → images of each class, instead; a class that has fewer in all is an error.
        rest: the split of all other rows.

    Example:
        split: {shares: {val: 0.25}}
    """
    given: Mapping[str, float] | None = images if shares is None else shares
    if (shares is None) == (images is None) or not given:
        raise RecipeError("split takes either `shares` or `images`", hint="`split: {shares: {val: 0.1}}`")
    if "" in [*given, rest]:
        raise RecipeError("a split needs a name")
    if shares is not None:
        _check(shares, rest)
        total = rows.scalar(f"SELECT count(*) FROM {rows}")
    else:
        if rest in given:
            raise RecipeError(
                f"`images` names {rest!r}, which takes the rest", hint="leave it out, or change `rest`"
            )
        _refuse_short(rows, int(sum(given.values())))
    marked, cases, taken = rows, "", 0.0
    for number, (name, part) in enumerate((n, p) for n, p in given.items() if n != rest):
        taken += part
        if shares is not None:
            quotas = allocate(rows, int(total * taken + 0.5), "proportional", seed, "split")
        else:
            quotas = dict.fromkeys(strata(rows), int(taken))
        marked = mark(marked, f"_split_{number}", quotas, seed, "split")
        cases += f" WHEN _split_{number} THEN {text(name)}"
    made = marked.with_columns(split=f"CASE{cases} ELSE {text(rest)} END" if cases else text(rest))
    return made.sql(f"SELECT {', '.join(map(quoted, rows.columns))} FROM {made}")


def _check(shares: dict[str, float], rest: str) -> None:
    total = sum(shares.values())
    if total > 1 + 1e-9 or (rest in shares and total < 1 - 1e-9):
        raise RecipeError(
            f"the shares add up to {total:g}",
            hint=f"make it 1, or leave out {rest!r}, which takes what the others leave",
        )


def _refuse_short(rows: Rows, images: int) -> None:
    few = rows.con.execute(
        f"SELECT label, count(*) FROM {rows} GROUP BY label HAVING count(*) < {images} ORDER BY label"
    ).fetchall()
    if few:
        name = {label: "no class" if label is None else rows.classes[label].id for label, _ in few[:3]}
        examples = ", ".join(f"{name[label]} has {count:,}" for label, count in few[:3])
        raise DataError(
            f"{len(few):,} classes have fewer than {images:,} images ({examples})",
            hint="ask for fewer, or use `shares`",
        )
