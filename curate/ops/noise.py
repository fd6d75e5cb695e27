"""Make labels wrong."""

from typing import Annotated, Any, Literal

from pydantic import Field

from curate.errors import RecipeError
from curate.ops import op
from curate.ops._labels.options import reject_unknown_options
from curate.ops._noise import KINDS, Options
from curate.ops._noise.flips import hits
from curate.recipes.signatures import ClassName, Fraction, RecipeFile, Seed
from curate.rows.relation import Rows
from curate.rows.sql import quoted

Name = Literal[
    "symmetric", "symmetric_inclusive", "pair", "asymmetric", "sibling", "hierarchy", "confusion", "instance"
]


@op(version=2)
def noise(
    rows: Rows,
    *,
    kind: Name = "symmetric",
    rate: Fraction | None = None,
    per: Literal["overall", "class"] = "overall",
    map: dict[ClassName, ClassName] | str | None = None,
    parents: Literal["first", "huh2016", "breeds"] | None = None,
    temperature: Annotated[float, Field(gt=0)] | None = None,
    file: Annotated[str, RecipeFile] | None = None,
    true_label: str | None = None,
    given_label: str | None = None,
    seed: Seed,
) -> Rows:
    """Give exactly `rate` of the labelled rows another class.

    The new label differs from the true one, so the error rate is `rate` and not rate * (1 - 1/classes); only
    `symmetric_inclusive` gives the latter. The true label stays in `clean_label`, and `clean` puts it back. Rows that
    are wrong at one rate are wrong in the same way at every higher rate with the same seed.

    Args:
        kind: symmetric (uniform over the other classes), symmetric_inclusive (uniform over all classes, the true
            one too), pair (the next class, circular), asymmetric (by `map`), sibling (uniform over the classes
            with the same parent in WordNet), hierarchy (any other, with weight exp(-distance / temperature) over
            the tree's edges between the two), confusion (by a matrix), instance (symmetric, by a rate of each row).
        rate: share, in [0, 1], of the labelled rows whose class can become another: all, except classes that a
            map or matrix leaves out and classes without siblings. The count is rounded to the nearest row,
            halves up. Confusion and instance have rates of their own (of each class; the sum over the rows) and
            need none; with one, relative likelihoods of classes or rows stay, as far as none passes 1.
        per: whether the rate is exact overall, or inside every class.
        map: asymmetric: true class → given class, by wnid or name; or `cifar10` (truck → automobile, bird →
            airplane, deer → horse, cat ↔ dog).
        parents: sibling and hierarchy: which parent of several counts; first (the default), huh2016 or breeds.
        temperature: hierarchy: in edges; 1 by default. Low is siblings only, high is uniform.
        file: instance: a table with the columns key and rate. Confusion: a table with the columns true, given and
            weight; or a square one, true classes in the first column and given ones in the header; or with
            `true_label` and `given_label` any table that has both labels in each row, whose pairs are counted.
        true_label: confusion: the column of true labels. Classes are wnids, names, or all of them numbers from 0.
        given_label: confusion: the column of labels as given, such as by people.

    Example:
        noise: {kind: sibling, rate: 0.5}

    Source: Patrini et al. 2017, https://arxiv.org/abs/1609.03683 (symmetric, pair, asymmetric); Wei et al. 2022,
    https://arxiv.org/abs/2110.12088 (human confusion); Xia et al. 2020, https://arxiv.org/abs/2006.07836 (instance).
    """
    given: dict[str, Any] = {
        **{"map": map, "parents": parents, "temperature": temperature},
        **{"file": file, "true_label": true_label, "given_label": given_label},
    }
    chosen = KINDS[kind]
    reject_unknown_options(f"kind: {kind}", chosen.options, given)
    if len(rows.classes) < 2 and rate != 0:
        raise RecipeError(f"noise needs at least 2 classes, there are {len(rows.classes)}")
    if "clean_label" in rows.columns:
        raise RecipeError(
            "these rows have noise already (column clean_label)", hint="give one rate in one step"
        )
    flips = chosen.flips(Options(rows, seed, **given))
    noisy = flips.give(hits(flips, rate, per, seed))
    columns = ["coalesce(_noise_given, label) AS label" if c == "label" else quoted(c) for c in rows.columns]
    return noisy.sql(f"SELECT {', '.join(columns)}, label AS clean_label FROM {noisy}")
