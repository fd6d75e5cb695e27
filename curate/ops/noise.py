"""Make labels wrong."""

from typing import Literal

from curate.chance import chance_sql
from curate.errors import RecipeError
from curate.ops import op
from curate.rows import Rows
from curate.signatures import Fraction, Seed


@op(version=1)
def noise(rows: Rows, *, kind: Literal["symmetric"] = "symmetric", rate: Fraction, seed: Seed) -> Rows:
    """Give exactly `rate` of the labelled rows another class.

    The new label always differs from the true one, so the error rate is `rate` and not
    rate * (1 - 1/classes). The true label stays in `clean_label`. Rows that are wrong at one rate are wrong,
    in the same way, at every higher rate with the same seed.

    Args:
        kind: symmetric (uniform over the other classes).
        rate: share of labelled rows, in [0, 1]; the count is rounded to the nearest row, halves up.

    Example:
        noise: {kind: symmetric, rate: 0.5}

    Source: Patrini et al., CVPR 2017, https://arxiv.org/abs/1609.03683
    """
    if len(rows.classes) < 2 and rate > 0:
        raise RecipeError(f"noise needs at least 2 classes, there are {len(rows.classes)}")
    if "clean_label" in rows.columns:
        raise RecipeError(
            "these rows have noise already (column clean_label)", hint="give one rate in one step"
        )
    labelled = rows.scalar(f"SELECT count(label) FROM {rows}")
    wrong = int(labelled * rate + 0.5)
    others = max(len(rows.classes) - 1, 1)
    ranked = rows.sql(
        f"SELECT *, label IS NOT NULL AND row_number() OVER "
        f"(ORDER BY label IS NULL, {chance_sql(seed, 'noise/hit')}, key) <= {wrong} AS hit FROM {rows}"
    )
    # A step of 1..classes-1 around the circle of classes never comes back to the start.
    step = f"({chance_sql(seed, 'noise/target')} % {others})::INTEGER + 1"
    noisy = ranked.with_columns(
        label=f"CASE WHEN hit THEN ((label + {step}) % {others + 1})::INTEGER ELSE label END",
        clean_label="label",
    )
    return noisy.sql(f"SELECT * EXCLUDE (hit) FROM {noisy}")
